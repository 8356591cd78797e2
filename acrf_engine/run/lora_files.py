"""LoRA files of a run, found and described without torch."""

from __future__ import annotations

import json
import re
import struct
from collections import Counter
from pathlib import Path
from typing import Any

from acrf_engine.run.folder import RunError, RunFolder

MAX_HEADER_BYTES = 16 << 20
KEY = re.compile(r"(?P<module>.+?)\.(?P<part>lora_A|lora_B|lora_down|lora_up)(\.default)?\.weight")
PEFT_STYLE = "raw PEFT"
STYLES = (
    ("transformer.", "diffusers"),
    ("diffusion_model.", "ComfyUI"),
    ("lora_unet_", "kohya"),
    ("base_model.model.", PEFT_STYLE),
)


def newest_lora(folder: RunFolder) -> Path:
    """The final LoRA of a run, or the newest that was saved on the way. Raises RunError where there is none."""
    files = [path for path in folder.lora.glob("*.safetensors") if not path.name.startswith(".")]
    if not files:
        raise RunError(f"run {folder.name} has saved no LoRA yet (`acrf-tui control {folder.name} checkpoint`)")
    return max(files, key=lambda path: path.stat().st_mtime_ns)


def metadata_of(path: Path) -> dict[str, str]:
    """The metadata in the header of a safetensors file. Raises RunError naming the file."""
    return {str(key): str(value) for key, value in (_header(path).get("__metadata__") or {}).items()}


def describe(path: Path) -> list[tuple[str, str]]:
    """What a LoRA file is, whoever wrote it, as rows of name and value. Raises RunError where it is none."""
    header = _header(path)
    metadata = {str(key): str(value) for key, value in (header.pop("__metadata__", None) or {}).items()}
    found = [match for name in header if (match := KEY.fullmatch(name))]
    if not found:
        raise RunError(f"{path}: not a LoRA ({len(header)} tensors, none named lora_A, lora_B, lora_down or lora_up)")
    modules = {match["module"] for match in found}
    downs = [name for name in header if (match := KEY.fullmatch(name)) and match["part"] in ("lora_A", "lora_down")]
    ranks = Counter(header[name]["shape"][0] for name in downs)
    alphas = sum(name.endswith(".alpha") for name in header)
    style = next((text for prefix, text in STYLES if found[0]["module"].startswith(prefix)), "unknown naming")
    strange = [name for name in header if not KEY.fullmatch(name) and not name.endswith((".alpha", ".dora_scale"))]
    rows = [
        ("file", f"{path}  ({path.stat().st_size / 1e6:,.1f} MB)"),
        ("format", style),
        ("modules", f"{len(modules)}: {', '.join(sorted({_kind(module) for module in modules}))}"),
        (
            "rank",
            ", ".join(f"{rank} ({count} modules)" if len(ranks) > 1 else f"{rank}" for rank, count in ranks.items()),
        ),
        ("alpha", f"{alphas} alpha tensors" if alphas else "none in the file: readers take alpha = rank"),
        ("dtype", ", ".join(sorted({str(entry["dtype"]) for entry in header.values()}))),
    ]
    if style == PEFT_STYLE and not alphas:
        rows.append(("warning", "raw PEFT weights: at alpha other than rank they load at the wrong strength"))
    if strange:
        rows.append(("warning", f"{len(strange)} tensors that no LoRA reader knows, first {strange[0]}"))
    if any(module.endswith("to_out.0.0") for module in modules):
        rows.append(("warning", "modules named to_out.0.0: nothing matches them (should be to_out.0)"))
    return rows + [(key, value) for key, value in sorted(metadata.items()) if len(value) <= 200]


def _kind(module: str) -> str:
    """The module's place in a block, without its number: attention.to_q and so on."""
    return re.sub(r"^.*?(?:layers|refiner)[._]\d+[._]", "", module)


def _header(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            if size > MAX_HEADER_BYTES:
                raise ValueError("its header is too long")
            return dict(json.loads(file.read(size)))
    except FileNotFoundError:
        raise RunError(f"{path}: there is no such file") from None
    except (OSError, ValueError, struct.error) as error:
        raise RunError(f"{path}: not a readable safetensors file ({error})") from None

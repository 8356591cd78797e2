"""LoRA files of a run, found and described without torch."""

from __future__ import annotations

import json
import struct
from pathlib import Path

from acrf_engine.run.folder import RunError, RunFolder

MAX_HEADER_BYTES = 16 << 20


def newest_lora(folder: RunFolder) -> Path:
    """The final LoRA of a run, or the newest that was saved on the way. Raises RunError where there is none."""
    files = [path for path in folder.lora.glob("*.safetensors") if not path.name.startswith(".")]
    if not files:
        raise RunError(f"run {folder.name} has saved no LoRA yet (`acrf-tui control {folder.name} checkpoint`)")
    return max(files, key=lambda path: path.stat().st_mtime_ns)


def metadata_of(path: Path) -> dict[str, str]:
    """The metadata in the header of a safetensors file. Raises RunError naming the file."""
    try:
        with path.open("rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            if size > MAX_HEADER_BYTES:
                raise ValueError("its header is too long")
            header = json.loads(file.read(size))
    except (OSError, ValueError, struct.error) as error:
        raise RunError(f"{path}: not a readable safetensors file ({error})") from None
    return {str(key): str(value) for key, value in (header.get("__metadata__") or {}).items()}

"""What a LoRA file is, whoever wrote it: read with numpy, one tensor at a time, without torch."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acrf_engine.run.folder import RunError
from acrf_engine.run.lora_base import base_model
from acrf_engine.run.lora_files import VALIDATION_LOSS, VALIDATION_PICTURES, header_of
from acrf_engine.run.lora_keys import Part, other_kind, parse
from acrf_engine.run.tensor_header import Entry, Header

Array = NDArray[np.float32]
PLAIN = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
BLOCK = re.compile(r"^(?P<block>.*?(?:layers|blocks|refiner)[._]\d+)\.(?P<kind>.+)$")
SHOWN = 200
NAMED = 5


@dataclass
class ModuleReport:
    """One module: shape (out, in) of the weight it changes; `norm` is the Frobenius norm of the change, scale included.

    None where a number cannot be known: alpha without one in the file, the norm of a type that is not read here.
    """

    name: str
    rank: int | None
    alpha: float | None
    shape: tuple[int, int] | None
    norm: float | None
    finite: bool = True
    zero: bool = False
    dora: bool = False


@dataclass
class Report:
    """A LoRA file. `kind` is LoRA, DoRA, LoKr, LoHa ...; `hash` is the sha256 of all its tensors."""

    file: str
    size: int
    kind: str
    format: str
    base: str
    dtypes: list[str]
    hash: str
    recorded_hash: str
    modules: list[ModuleReport]
    warnings: list[str] = field(default_factory=list)
    metadata: dict[str, str] = field(default_factory=dict)


def look(path: Path) -> Report:
    """Read a file and say what it is. Raises RunError where it is no adapter at all."""
    header = header_of(path)
    names = list(header.tensors)
    keys = {name: key for name in names if (key := parse(name)) is not None}
    factors = [key for key in keys.values() if key.part in ("down", "up")]
    kind = other_kind(names)
    if not factors and not kind:
        raise RunError(f"{path}: not a LoRA ({len(names)} tensors, none named lora_A, lora_B, lora_down or lora_up)")
    with path.open("rb") as file:
        file.seek(header.data_start)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    styles = Counter(key.style for key in keys.values())
    report = Report(
        str(path),
        path.stat().st_size,
        kind or ("DoRA" if any(key.part in ("magnitude", "dora_scale") for key in keys.values()) else "LoRA"),
        styles.most_common(1)[0][0] if styles else "LyCORIS",
        "unknown",
        sorted({entry.dtype for entry in header.tensors.values()}),
        digest,
        header.metadata.get("sshs_model_hash", header.metadata.get("modelspec.hash_sha256", "")).removeprefix("0x"),
        _modules(path, header),
        metadata=header.metadata,
    )
    shapes = {module.name: module.shape for module in report.modules if module.shape is not None}
    report.base = base_model(shapes or dict.fromkeys((re.sub(r"\.[^.]*$", "", n) for n in names), (0, 0)))
    report.warnings = _warnings(report, names, set(keys), {key.style for key in factors})
    return report


def _modules(path: Path, header: Header) -> list[ModuleReport]:
    parts: dict[str, dict[Part, Entry]] = {}
    for name, entry in header.tensors.items():
        if (key := parse(name)) is not None:
            parts.setdefault(key.module, {})[key.part] = entry
    with path.open("rb") as file:
        data = np.memmap(file, dtype=np.uint8, mode="r") if path.stat().st_size else np.empty(0, np.uint8)
        return [_module(name, entries, data) for name, entries in sorted(parts.items(), key=_natural)]


def _module(name: str, entries: dict[Part, Entry], data: NDArray[np.uint8]) -> ModuleReport:
    down, up = entries.get("down"), entries.get("up")
    rank = down.shape[0] if down and down.shape else None
    shape = (up.shape[0], math.prod(down.shape[1:])) if up and down and up.shape and down.shape else None
    values = {part: _values(entry, data) for part, entry in entries.items()}
    given = values.get("alpha")
    alpha = float(given.flat[0]) if given is not None and given.size else None
    read = [value for value in values.values() if value is not None]
    report = ModuleReport(name, rank, alpha, shape, None, dora="magnitude" in entries or "dora_scale" in entries)
    report.finite = all(np.isfinite(value).all() for value in read)
    a, b = values.get("down"), values.get("up")
    if a is not None and b is not None and rank and report.finite:
        a, b = a.reshape(rank, -1).astype(np.float64), b.reshape(b.shape[0], -1).astype(np.float64)
        if b.shape[1] == rank:
            # The norm of up @ down, from two matrices of rank x rank alone.
            squared = float(np.sum((b.T @ b) * (a @ a.T)))
            report.norm = math.sqrt(max(squared, 0.0)) * (alpha / rank if alpha is not None else 1.0)
            report.zero = report.norm == 0
    return report


def _values(entry: Entry, data: NDArray[np.uint8]) -> Array | None:
    """A tensor in float32; None for types that are not read here (8-bit floats)."""
    raw = data[entry.start : entry.end]
    if entry.dtype == "BF16":
        return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32).reshape(entry.shape)
    if entry.dtype in PLAIN:
        return np.frombuffer(raw.tobytes(), PLAIN[entry.dtype]).astype(np.float32).reshape(entry.shape)
    return None


def _warnings(report: Report, names: list[str], known: set[str], styles: set[str]) -> list[str]:
    said = []

    def tell(what: str, modules: list[str]) -> None:
        if modules:
            more = f" and {len(modules) - NAMED} more" if len(modules) > NAMED else ""
            said.append(f"{len(modules)} modules {what}: {', '.join(modules[:NAMED])}{more}")

    alone = [m.name for m in report.modules if m.shape is None and report.kind in ("LoRA", "DoRA")]
    tell("hold NaN or infinity", [m.name for m in report.modules if not m.finite])
    tell("change nothing (all zero)", [m.name for m in report.modules if m.zero])
    tell("have only one of their two factors", alone)
    peft = "lora_adapter_metadata" in report.metadata
    if "raw PEFT" in styles and not peft and all(module.alpha is None for module in report.modules):
        said.append("raw PEFT weights: at alpha other than rank they load at the wrong strength")
    if report.kind in ("LoRA", "DoRA") and (strange := [name for name in names if name not in known]):
        said.append(f"{len(strange)} tensors that no LoRA reader knows, first {strange[0]}")
    if any(module.name.endswith("to_out.0.0") for module in report.modules):
        said.append("modules named to_out.0.0: nothing matches them (should be to_out.0)")
    if report.recorded_hash and report.recorded_hash != report.hash:
        said.append("its metadata has the hash of other tensors: the file was changed after it was written")
    return said


def report_json(report: Report) -> str:
    """Everything as one JSON object; what is not finite is null."""
    values: dict[str, Any] = asdict(report)
    return json.dumps(_finite(values), indent=1, allow_nan=False)


def rows(report: Report) -> list[tuple[str, str]]:
    """The report for people, as rows of name and value."""
    modules = report.modules
    norms = [module.norm for module in modules if module.norm is not None]
    kinds = Counter(_kind(module.name) for module in modules)
    found = [
        ("file", f"{_shown(report.file)}  ({report.size / 1e6:,.1f} MB)"),
        ("kind", report.kind),
        ("format", report.format),
        ("base model", report.base),
        ("modules", f"{len(modules)}: " + ", ".join(f"{kind} ({count})" for kind, count in kinds.items())),
        ("blocks", _blocks(modules)),
        ("rank", _counted([module.rank for module in modules if module.rank is not None])),
        ("alpha", _alphas(report)),
        ("dtype", ", ".join(report.dtypes)),
        ("change", _norms(modules, norms)),
        ("validation", _validation(report.metadata)),
        ("hash", report.hash),
    ]
    found = [(name, value) for name, value in found if value]
    found += [("warning", _shown(text)) for text in report.warnings]
    metadata = sorted((key, value) for key, value in report.metadata.items() if key != "format" and len(value) <= SHOWN)
    return found + [(_shown(key), _shown(value)) for key, value in metadata]


def _validation(metadata: dict[str, str]) -> str:
    """What the best LoRA of a run says of itself."""
    loss, pictures = metadata.get(VALIDATION_LOSS, ""), metadata.get(VALIDATION_PICTURES, "?")
    if not loss:
        return ""
    return f"loss {loss} on {pictures} held-out pictures at step {metadata.get('ss_steps', '?')}, the lowest of its run"


def _alphas(report: Report) -> str:
    alphas = [module.alpha for module in report.modules if module.alpha is not None]
    if not alphas:
        return "none in the file: readers take alpha = rank" if report.kind in ("LoRA", "DoRA") else ""
    missing = len(report.modules) - len(alphas)
    return _counted([f"{alpha:g}" for alpha in alphas]) + (f"; {missing} modules have none" if missing else "")


def _norms(modules: list[ModuleReport], norms: list[float]) -> str:
    if not norms:
        return "not known (this type of number is not read here)"
    largest = max(modules, key=lambda module: module.norm or 0.0)
    dora = ", of the direction" if any(module.dora for module in modules) else ""
    spread = f"median {sorted(norms)[len(norms) // 2]:.3g}, largest {max(norms):.3g} ({largest.name})"
    return f"norm of up x down{dora}: smallest {min(norms):.3g}, {spread}"


def _blocks(modules: list[ModuleReport]) -> str:
    numbers: dict[str, set[int]] = {}
    for module in modules:
        if (found := BLOCK.match(module.name)) and (place := re.fullmatch(r"(.*?)[._](\d+)", found["block"])):
            numbers.setdefault(place[1], set()).add(int(place[2]))
    return ", ".join(f"{name} {_ranges(sorted(found))}" for name, found in numbers.items())


def _ranges(numbers: list[int]) -> str:
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ",".join(f"{part[0]}-{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts)


def _kind(name: str) -> str:
    found = BLOCK.match(name)
    return found["kind"] if found else name


def _counted(values: list[Any]) -> str:
    counts = Counter(values)
    if len(counts) == 1:
        return str(next(iter(counts)))
    return ", ".join(f"{value} ({count} modules)" for value, count in counts.most_common(8))


def _natural(item: tuple[str, Any]) -> list[Any]:
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", item[0])]


def _shown(text: str) -> str:
    """Text of a file, harmless on a terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

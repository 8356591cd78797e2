"""A LoRA merged into its base: a folder in diffusers layout whose transformer holds the changed weights."""

from __future__ import annotations

import glob
import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from torch import Tensor

from acrf_engine.model.adapter import Lora
from acrf_engine.model.errors import LoraError
from acrf_engine.model.export import read, require_finite
from acrf_engine.model.layout import Checkpoint, transformer_files
from acrf_engine.run.tensor_header import Entry, Header

DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
TRANSFORMER = "transformer"
LARGE_ERROR = 0.25


@dataclass
class Merged:
    """What was written. `error` is that of rounding to the base's dtype, as a share of the change's norm."""

    out: Path
    modules: int = 0
    dtype: str = ""
    bytes_written: int = 0
    linked: int = 0
    copied: int = 0
    error: float = 0.0

    def lines(self) -> list[str]:
        """The report for people."""
        others = []
        if self.linked:
            others.append(f"{self.linked} hard-linked (they take no room)")
        if self.copied:
            others.append(f"{self.copied} copied")
        rows = [
            f"{self.out}: transformer with {self.modules} changed weights, {_size(self.bytes_written)} written",
            f"files of the other parts: {', '.join(others) or 'none'}",
            f"error of rounding to {self.dtype}: {self.error:.2%} of the change",
        ]
        if self.error > LARGE_ERROR:
            rows.append("  the change is small beside the weights: a LoRA file, or an fp32 base, keeps it whole")
        return rows


def merge(source: Path, model: str, scale: float, out: Path) -> Merged:
    """Write the model with the LoRA of `source`, times `scale`, into the new folder `out`.

    Shards, their names and all other tensors stay as they are. Written beside and renamed, so `out` is whole or not
    there.

    Raises:
        LoraError: where LoRA and model do not fit, the model is quantised, or there is no room.
        ModelError: where there is no such model.
    """
    if not math.isfinite(scale):
        raise LoraError(f"--scale {scale}: expected a number")
    checkpoint = Checkpoint(model)
    lora, _ = read(source)
    require_finite(lora)
    headers = transformer_files(checkpoint.folder)
    _require_fit(source, lora, headers, checkpoint)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise LoraError(f"{out}: is there already (choose another --out)")
    out = out.absolute()
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _clean(out)
        _require_room(checkpoint.folder, out.parent)
        temporary.mkdir()
        merged = _write(checkpoint.folder, headers, lora, scale, temporary, out)
        if out.is_dir():
            out.rmdir()
        os.rename(temporary, out)
    except OSError as error:
        raise LoraError(f"{out}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return merged


def _write(
    folder: Path, headers: Mapping[Path, Header], lora: Lora, scale: float, temporary: Path, out: Path
) -> Merged:
    merged = Merged(out)
    lost = size = 0.0
    for path in _files(folder):
        target = temporary / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path in headers:
            shutil.copyfile(path, target)
            changed = _change(target, headers[path], lora, scale)
            merged.modules += changed.modules
            merged.dtype = changed.dtype or merged.dtype
            merged.bytes_written += target.stat().st_size
            lost, size = lost + changed.lost, size + changed.size
        elif target.parent.name == TRANSFORMER or path.parent == folder or not _link(path, target):
            shutil.copyfile(path, target)
            merged.copied += 1
        else:
            merged.linked += 1
    merged.error = (lost / size) ** 0.5 if size else 0.0
    return merged


@dataclass
class _Changed:
    """Of one file: `lost` and `size` are squared norms."""

    modules: int = 0
    dtype: str = ""
    lost: float = 0.0
    size: float = 0.0


def _change(path: Path, header: Header, lora: Lora, scale: float) -> _Changed:
    """Put the merged weights into the places of the base's, and read each back."""
    done = _Changed()
    with path.open("r+b") as file:
        for name, entry in header.tensors.items():
            factors = lora.get(name.removesuffix(".weight"))
            if factors is None or not name.endswith(".weight"):
                continue
            file.seek(entry.start)
            weight = _tensor(file.read(entry.end - entry.start), entry)
            wanted = factors.applied(weight, scale)
            rounded = wanted.to(weight.dtype)
            raw = rounded.contiguous().view(torch.uint8).numpy().tobytes()
            file.seek(entry.start)
            file.write(raw)
            file.flush()
            file.seek(entry.start)
            if file.read(len(raw)) != raw or not torch.isfinite(rounded).all():
                raise LoraError(f"{path.name}: {name} reads back differently, or is not finite (nothing is kept)")
            done.modules += 1
            done.dtype = entry.dtype
            done.lost += float((rounded.float() - wanted).double().square().sum())
            done.size += float((wanted - weight.float()).double().square().sum())
        os.fsync(file.fileno())
    return done


def _tensor(raw: bytes, entry: Entry) -> Tensor:
    return torch.frombuffer(bytearray(raw), dtype=DTYPES[entry.dtype]).reshape(entry.shape)


def _require_fit(source: Path, lora: Lora, headers: Mapping[Path, Header], checkpoint: Checkpoint) -> None:
    weights = {name: entry for header in headers.values() for name, entry in header.tensors.items()}
    for module, factors in lora.items():
        entry = weights.get(f"{module}.weight")
        if entry is None:
            raise LoraError(f"{source}: {module}: the model {checkpoint.name} has no such module (another base?)")
        if entry.shape != factors.shape:
            raise LoraError(
                f"{source}: {module} changes a weight of shape {factors.shape}, the one of {checkpoint.name} is "
                f"{entry.shape} (another base?)"
            )
        if entry.dtype not in DTYPES:
            raise LoraError(
                f"{checkpoint.folder}: its weights are {entry.dtype}; a LoRA is merged into {', '.join(DTYPES)} only "
                "(give --model a folder that is not quantised)"
            )


def _require_room(folder: Path, place: Path) -> None:
    """Room for the transformer, and for the other parts where they cannot be linked."""
    same_disk = folder.stat().st_dev == place.stat().st_dev
    files = _files(folder)
    needed = sum(
        path.stat().st_size for path in files if not same_disk or path.relative_to(folder).parts[0] == TRANSFORMER
    )
    free = shutil.disk_usage(place).free
    if free < needed:
        raise LoraError(f"{place}: {_size(needed)} are needed, {_size(free)} are free (make room)")


def _files(folder: Path) -> list[Path]:
    """The model's files; what is hidden (a clone's .git, a download's .cache) is none of them."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def _size(count: int) -> str:
    return f"{count / 1e9:,.2f} GB" if count >= 1e8 else f"{count / 1e6:,.1f} MB"


def _clean(out: Path) -> None:
    """Remove what a killed merge into the same place has left: it is as large as the model."""
    for left in out.parent.glob(f".{glob.escape(out.name)}.*.tmp"):
        owner = left.name.removesuffix(".tmp").rpartition(".")[2]
        if owner.isdecimal() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(left, ignore_errors=True)


def _link(path: Path, target: Path) -> bool:
    try:
        os.link(path.resolve(), target)
    except OSError:
        return False
    return True

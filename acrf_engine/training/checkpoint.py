"""Checkpoints: a folder that is either complete and verified, or not there.

Written beside, every file fsynced and hashed into the manifest, the manifest last, then renamed into place and the
parent fsynced. The newest folder whose manifest verifies wins; there is no pointer file to be wrong. Only safetensors
and JSON are ever read.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

log = logging.getLogger("acrf.checkpoint")

FORMAT = 1
MANIFEST = "manifest.json"
LORA, OPTIMIZER, STATE = "lora.safetensors", "optimizer.safetensors", "state.json"
EMA = "ema.safetensors"


class CheckpointError(Exception):
    """A checkpoint cannot be written or read; the message names the folder and the reason."""


@dataclass(frozen=True)
class Snapshot:
    """What a run needs to go on exactly: LoRA in fp32, optimizer state, and `state` (position, live settings...).

    `ema` is the moving average of the LoRA, by the same names; None in a run without one.
    """

    lora: dict[str, Tensor]
    optimizer: dict[str, Any]
    state: dict[str, Any]
    ema: dict[str, Tensor] | None = None


def checkpoint_path(folder: Path, step: int) -> Path:
    return folder / f"step-{step:06d}"


def write(folder: Path, step: int, snapshot: Snapshot) -> tuple[Path, int]:
    """Write a checkpoint of `step` into `folder`; returns its path and size in bytes once it is durable.

    On any error nothing of it is left. Raises CheckpointError naming what failed.
    """
    target = checkpoint_path(folder, step)
    temporary = folder / f".tmp-{step}-{os.getpid()}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(mode=0o700)
        files = encoded(snapshot)
        manifest = {
            "format": FORMAT,
            "step": step,
            "files": {
                name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()
            },
        }
        files[MANIFEST] = _json(manifest)
        _require_room(folder, sum(len(data) for data in files.values()))
        for name, data in files.items():
            _write_durably(temporary / name, data)
        _sync_folder(temporary)
        _replace(temporary, target)
        _sync_folder(folder)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)  # so that its bytes count as free
        free = _free_bytes(folder)
        raise CheckpointError(
            f"{target}: not saved: {error.strerror or error}"
            + (f" ({free / 1e6:,.0f} MB free on that disk: make room)" if free is not None else "")
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        _empty_trash(folder)
    return target, sum(len(data) for data in files.values())


def _replace(temporary: Path, target: Path) -> None:
    """Rename into place; the same step saved before (a resume, a second save) gives way, and comes back on an error."""
    former = target.with_name(f".former-{target.name}")
    if target.exists():
        os.rename(target, former)
    try:
        os.rename(temporary, target)
    except OSError:
        if former.exists():
            os.rename(former, target)
        raise
    shutil.rmtree(former, ignore_errors=True)


def verified(folder: Path, tell: Callable[[str], None] = log.warning) -> Iterator[tuple[Path, Snapshot]]:
    """Read the checkpoints that verify, newest first. `tell` is told of each broken one."""
    for path in reversed(in_place(folder)):
        try:
            snapshot = read(path)
        except CheckpointError as error:
            tell(f"{error}; trying the one before")
        else:
            yield path, snapshot


def read(path: Path) -> Snapshot:
    """A checkpoint, every byte checked against its manifest. Raises CheckpointError."""
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
        data = {}
        names = (LORA, OPTIMIZER, STATE, *({EMA} & manifest["files"].keys()))
        for name in names:
            raw = (path / name).read_bytes()
            if hashlib.sha256(raw).hexdigest() != manifest["files"][name]["sha256"]:
                raise CheckpointError(f"{path / name}: damaged (its sha256 differs from the manifest)")
            data[name] = raw
        if manifest["format"] != FORMAT or manifest["step"] != step_of(path):
            raise CheckpointError(f"{path}: not this checkpoint (format {manifest['format']}, step {manifest['step']})")
        return decoded(data)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, SafetensorError) as error:
        raise CheckpointError(f"{path}: incomplete or damaged ({error!r})") from error


def encoded(snapshot: Snapshot) -> dict[str, bytes]:
    """The files of a snapshot, by name."""
    tensors, structure = flatten(snapshot.optimizer)
    files = {
        LORA: _safetensors(snapshot.lora),
        OPTIMIZER: save(tensors),
        STATE: _json({"optimizer": structure, **snapshot.state}),
    }
    if snapshot.ema is not None:
        files[EMA] = _safetensors(snapshot.ema)
    return files


def decoded(files: Mapping[str, bytes]) -> Snapshot:
    """The inverse of `encoded`. Raises what json and safetensors raise."""
    state = json.loads(files[STATE])
    optimizer = unflatten(state.pop("optimizer"), load(files[OPTIMIZER]))
    return Snapshot(load(files[LORA]), optimizer, state, load(files[EMA]) if EMA in files else None)


def step_of(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def rotate(folder: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints; each is renamed away first, so that no half one is ever seen."""
    for path in in_place(folder)[:-keep]:
        with contextlib.suppress(OSError):
            os.rename(path, folder / f".trash-{path.name}-{os.getpid()}")
    _empty_trash(folder)


def clean(folder: Path) -> None:
    """Remove what a killed writer left, and bring back what it had moved aside. Only under the run's lock."""
    for former in folder.glob(".former-step-*"):
        target = former.with_name(former.name.removeprefix(".former-"))
        if target.exists():
            shutil.rmtree(former, ignore_errors=True)
        else:
            os.rename(former, target)
    for pattern in (".tmp-*", ".trash-*"):
        for path in folder.glob(pattern):
            shutil.rmtree(path, ignore_errors=True)


def flatten(state: dict[str, Any]) -> tuple[dict[str, Tensor], Any]:
    """A nested optimizer state as named tensors and a JSON structure that refers to them by name."""
    tensors: dict[str, Tensor] = {}

    def walk(value: Any) -> Any:
        if isinstance(value, Tensor):
            name = f"t{len(tensors):05d}"
            tensors[name] = value.detach().cpu().contiguous().clone()
            return {"tensor": name}
        if isinstance(value, dict):
            return {"dict": [[_typed(key), walk(item)] for key, item in value.items()]}
        if isinstance(value, (list, tuple)):
            return {"list": [walk(item) for item in value], "tuple": isinstance(value, tuple)}
        if isinstance(value, (str, int, float, bool)) or value is None:
            return {"value": value}
        raise TypeError(f"optimizer state holds a {type(value).__name__}, which cannot be saved without pickle")

    return tensors, walk(state)


def unflatten(structure: Any, tensors: dict[str, Tensor]) -> Any:
    """The inverse of `flatten`."""
    if "tensor" in structure:
        return tensors[structure["tensor"]]
    if "dict" in structure:
        return {key: unflatten(item, tensors) for key, item in structure["dict"]}
    if "list" in structure:
        items = [unflatten(item, tensors) for item in structure["list"]]
        return tuple(items) if structure["tuple"] else items
    return structure["value"]


def _typed(key: Any) -> str | int:
    if not isinstance(key, (str, int)):
        raise TypeError(f"optimizer state has a key of type {type(key).__name__}")
    return key


def _safetensors(tensors: dict[str, Tensor]) -> bytes:
    return save({name: value.detach().cpu().contiguous() for name, value in tensors.items()})


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1).encode("utf-8")


def in_place(folder: Path) -> list[Path]:
    """Checkpoints in place, oldest step first."""
    found = [path for path in folder.glob("step-*") if path.is_dir() and path.name[5:].isdecimal()]
    return sorted(found, key=step_of)


def _write_durably(path: Path, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _require_room(folder: Path, needed: int) -> None:
    if (free := _free_bytes(folder)) is not None and free < needed:
        raise OSError(errno.ENOSPC, f"no room for {needed / 1e6:,.0f} MB")


def _empty_trash(folder: Path) -> None:
    for path in folder.glob(f".trash-*-{os.getpid()}"):
        shutil.rmtree(path, ignore_errors=True)


def _free_bytes(folder: Path) -> int | None:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None

"""Tensors kept in files: written all or nothing, read back only when they are exactly what was written."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Literal

from safetensors.torch import load, save
from torch import Tensor

from acrf_engine.data.errors import DataError, printable

FORMAT = "acrf-cache-1"

_NAME = "data"
_LEFTOVER_SECONDS = 3600.0

Kind = Literal["latents", "captions", "masks"]


class Cache:
    """A folder of tensors, shared safely by several processes: `<folder>/<kind>/<key[:2]>/<key>.safetensors`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, kind: Kind, key: str) -> Path:
        """Return where the entry of `key` (64 hex digits) is kept, whether it exists or not."""
        return self.folder / kind / key[:2] / f"{key}.safetensors"

    def read(self, kind: Kind, key: str) -> Tensor | None:
        """Return the tensor, or None when it is missing or its file is not exactly what was written."""
        try:
            # Read, not mapped: a mapped file that shrinks kills the process.
            data = self.path(kind, key).read_bytes()
            header = int.from_bytes(data[:8], "little")
            metadata = json.loads(data[8 : 8 + header])["__metadata__"]
            tensor = load(data)[_NAME]
        except Exception:
            # Whatever is wrong with an entry, the cure is the same: compute it again.
            return None
        return tensor if metadata == _metadata(kind, key, tensor) else None

    def write(self, kind: Kind, key: str, tensor: Tensor) -> None:
        """Store the tensor, all or nothing even through a crash. Raises DataError when the folder cannot take it."""
        file = self.path(kind, key)
        data = save({_NAME: tensor}, _metadata(kind, key, tensor))
        try:
            _make_private(self.folder, file.parent)
            _write_atomically(file, data)
        except OSError as error:
            raise DataError(self._cannot_write(error, len(data))) from error

    def remove_leftovers(self) -> None:
        """Remove temporary files that a killed process left behind; young ones may still be in use."""
        for file in self.folder.glob("*/*/.*.tmp"):
            try:
                if time.time() - file.stat().st_mtime > _LEFTOVER_SECONDS:
                    file.unlink()
            except OSError:
                continue

    def _cannot_write(self, error: OSError, size: int) -> str:
        folder = printable(self.folder)
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return f"cache folder {folder} cannot be written: {(error.strerror or str(error)).lower()}"
        try:
            free = f"{shutil.disk_usage(self.folder).free:,} bytes free"
        except OSError:
            free = "free space unknown"
        why = (error.strerror or "disk full").lower()
        return f"cache folder {folder} is full: {why}, {free}, {size:,} needed for the next file (make room or move it)"


def _metadata(kind: Kind, key: str, tensor: Tensor) -> dict[str, str]:
    return {
        "format": FORMAT,
        "kind": kind,
        "key": key,
        "shape": "x".join(map(str, tensor.shape)),
        "dtype": str(tensor.dtype),
        "sha256": hashlib.sha256(tensor.numpy().tobytes()).hexdigest(),
    }


def _make_private(root: Path, folder: Path) -> None:
    """Create `folder` and its parents up to `root` for this user only; folders that exist keep their mode."""
    if not folder.is_dir():
        root.parent.mkdir(parents=True, exist_ok=True)
        for part in (root, folder.parent, folder):
            part.mkdir(mode=0o700, exist_ok=True)


def _write_atomically(file: Path, data: bytes) -> None:
    descriptor, name = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=file.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(name, file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise

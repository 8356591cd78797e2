"""Writing safetensors files so that the same tensors and metadata are the same bytes, and reading them back."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from acrf_engine.model.errors import LoraError

Check = Callable[[dict[str, Tensor]], None]
LEGACY_OFFSET, LEGACY_LENGTH = 0x100000, 0x10000


def to_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """The file: the library's own order of tensors, and metadata sorted (the library's order differs every time)."""
    header, data = _split(tensors)
    text = _header(header, metadata)
    return len(text).to_bytes(8, "little") + text + data


def with_hashes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, str]:
    """The metadata, with the hashes of the tensors that users' tools look a file up by.

    `sshs_model_hash` and `modelspec.hash_sha256` are the sha256 of all that follows the header; `sshs_legacy_hash` is
    of the 64 KiB after the first MiB of the file with its ss_ metadata alone, as kohya's trainer computes it.
    """
    header, data = _split(tensors)
    whole = hashlib.sha256(data).hexdigest()
    text = _header(header, {key: value for key, value in metadata.items() if key.startswith("ss_")})
    start = LEGACY_OFFSET - 8 - len(text)
    middle = (text[max(0, LEGACY_OFFSET - 8) :] + data)[:LEGACY_LENGTH] if start < 0 else data[start:][:LEGACY_LENGTH]
    legacy = hashlib.sha256(middle).hexdigest()[:8]
    return {
        **metadata,
        "modelspec.hash_sha256": f"0x{whole}",
        "sshs_model_hash": whole,
        "sshs_legacy_hash": legacy,
    }


def write(path: Path, tensors: dict[str, Tensor], metadata: Mapping[str, str], check: Check) -> None:
    """Write beside, fsync, read back, compare, let `check` judge what was read, and only then rename into place.

    Raises LoraError: then the file that was there before is there still.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    raw = to_bytes(tensors, {"format": "pt", **metadata})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        back = temporary.read_bytes()
        if back != raw:
            raise LoraError(f"{path}: reads back differently from what was written (a failed save; is the disk sound?)")
        try:
            check(load(back))
        except (LoraError, SafetensorError) as error:
            raise LoraError(f"{path}: a failed save: {error}") from error
        os.replace(temporary, path)
    except OSError as error:
        raise LoraError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file. Raises LoraError naming the file."""
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            return {name: file.get_tensor(name) for name in names}, dict(file.metadata() or {})
    except FileNotFoundError:
        raise LoraError(f"{path}: there is no such file") from None
    except (SafetensorError, OSError) as error:
        raise LoraError(f"{path}: not a readable safetensors file ({error})") from None


def _split(tensors: Mapping[str, Tensor]) -> tuple[dict[str, object], bytes]:
    plain = save({name: value.contiguous() for name, value in tensors.items()})
    size = int.from_bytes(plain[:8], "little")
    return json.loads(plain[8 : 8 + size]), plain[8 + size :]


def _header(tensors: dict[str, object], metadata: Mapping[str, str]) -> bytes:
    entries = {"__metadata__": dict(sorted(metadata.items())), **tensors} if metadata else tensors
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    return text + b" " * (-len(text) % 8)

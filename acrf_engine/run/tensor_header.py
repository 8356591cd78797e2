"""The header of a safetensors file: names, types, shapes and metadata, without reading a tensor."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_HEADER_BYTES = 100 << 20
"""What the format itself allows."""


class HeaderError(Exception):
    """Not a safetensors file that can be read; the message says why, without the file's name."""


@dataclass(frozen=True)
class Entry:
    """One tensor: its type as the format names it (F32, BF16), its shape, and its first and last byte in the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Header:
    tensors: dict[str, Entry]
    metadata: dict[str, str]
    data_start: int


def read_header(path: Path) -> Header:
    """Raises HeaderError; FileNotFoundError where there is no such file."""
    try:
        size_of_file = path.stat().st_size
        with path.open("rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            if size > min(MAX_HEADER_BYTES, size_of_file):
                raise HeaderError("its header is too long")
            header: dict[str, Any] = json.loads(file.read(size))
        metadata = header.pop("__metadata__", None) or {}
        start = 8 + size
        tensors = {name: _entry(entry, start) for name, entry in header.items()}
    except FileNotFoundError:
        raise
    except (OSError, ValueError, LookupError, TypeError, AttributeError, struct.error, RecursionError) as error:
        raise HeaderError(str(error) or type(error).__name__) from None
    if cut := [name for name, entry in tensors.items() if not start <= entry.start <= entry.end <= size_of_file]:
        raise HeaderError(f"it is cut off, or damaged: {cut[0]} is not in it as a whole")
    return Header(tensors, {str(key): str(value) for key, value in metadata.items()}, start)


def _entry(entry: dict[str, Any], data_start: int) -> Entry:
    start, end = entry["data_offsets"]
    return Entry(str(entry["dtype"]), tuple(map(int, entry["shape"])), data_start + int(start), data_start + int(end))

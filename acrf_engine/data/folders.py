"""Folders of a data set: the pictures and captions files that are in them, and why there are none."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from acrf_engine.data.caption_files import METADATA_NAMES
from acrf_engine.data.errors import DataError, printable
from acrf_engine.data.pictures import SUFFIXES

_PACKED = (".parquet", ".arrow", ".tar", ".zip")
_UNREAD = (
    ".gif", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jxl", ".jp2", ".jfif", ".tga", ".psd", ".svg", ".exr", ".hdr",
    ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2",
)  # fmt: skip
"""Pictures of formats that are not read."""
_NOT_CAPTIONS = {"readme", "license"}


@dataclass(frozen=True)
class Rejected:
    """A file that is left out, and a short reason for people."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Listing:
    """A folder's pictures by suffix, its metadata files, its other files, and the sub-folders that cannot be read."""

    paths: list[Path]
    metadata: list[Path]
    others: list[Path]
    closed: list[Rejected]

    def unread(self) -> list[Rejected]:
        """Files that hold pictures in a form that is not read, each with what to do."""
        kinds = [(path, path.suffix.lower()) for path in self.others]
        return [
            Rejected(path, f"{kind[1:].upper()} files are not read ({_cure([kind])})")
            for path, kind in kinds
            if kind in _UNREAD or kind in _PACKED
        ]

    def captions_alone(self, extension: str) -> list[Path]:
        """Caption files that have no picture beside them: a name that differs, or a picture that is gone."""
        named = {path.with_suffix("") for path in (*self.paths, *(left.path for left in self.unread()))}
        return [
            path
            for path in self.others
            if path.suffix.lower() == extension.lower()
            and path.with_suffix("") not in named
            and path.stem.lower() not in _NOT_CAPTIONS
        ]


def list_folder(folder: Path, skip: Path | None = None) -> Listing:
    """List `folder` and its sub-folders, hidden ones and `skip` left out, in an order that depends on names alone.

    Raises DataError when it is missing, cannot be read, or holds no pictures.
    """
    shown = printable(folder)
    _must_be_folder(folder)
    closed: list[Rejected] = []

    def on_error(error: OSError) -> None:
        path, why = Path(str(error.filename)), (error.strerror or "unknown error").lower()
        if path == folder:
            raise DataError(f"dataset: {shown} cannot be read: {why}") from error
        closed.append(Rejected(path, f"folder cannot be read: {why}"))

    paths: list[Path] = []
    metadata: list[Path] = []
    others: list[Path] = []
    for path in _walk(folder, skip, on_error):
        if path.suffix.lower() in SUFFIXES:
            paths.append(path)
        elif path.name in METADATA_NAMES:
            metadata.append(path)
        else:
            others.append(path)
    if not paths:
        raise DataError(_no_pictures(shown, Counter(path.suffix.lower() for path in others), closed))

    def place(path: Path) -> str:
        return path.relative_to(folder).as_posix()

    return Listing(sorted(paths, key=place), sorted(metadata, key=place), sorted(others, key=place), closed)


def _must_be_folder(folder: Path) -> None:
    shown = printable(folder)
    try:
        mode = folder.stat().st_mode
    except FileNotFoundError:
        why = "is a link to nowhere" if folder.is_symlink() else "does not exist"
        here = "" if folder.is_absolute() else f" (relative to {printable(Path.cwd())})"
        raise DataError(f"dataset: {shown} {why}; check the path{here}") from None
    except (OSError, ValueError) as error:
        why = (getattr(error, "strerror", None) or str(error)).lower()
        raise DataError(f"dataset: {shown} cannot be read: {why}") from error
    if not stat.S_ISDIR(mode):
        raise DataError(f"dataset: {shown} is a file; give the folder that holds it")


def _walk(folder: Path, skip: Path | None, on_error: Callable[[OSError], None]) -> Iterator[Path]:
    seen = {_identity(os.stat(skip))} if skip is not None else set()
    for here, folders, files in os.walk(folder, onerror=on_error, followlinks=True):
        try:
            status = os.stat(here)
        except OSError as error:
            on_error(error)
            continue
        # A link to a folder above would be walked for ever.
        if _identity(status) in seen:
            folders.clear()
            continue
        seen.add(_identity(status))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(here, name) for name in files if not name.startswith("."))


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _no_pictures(folder: str, others: Counter[str], closed: Sequence[Rejected]) -> str:
    message = f"dataset: {folder} holds no pictures (looked for {' '.join(SUFFIXES)}, in sub-folders too)"
    captions = others.pop(".txt", 0)
    if others:
        most = others.most_common(3)
        kinds = [f"{n} {printable(suffix) or 'nameless'} file{'s' if n > 1 else ''}" for suffix, n in most]
        rest = sum(others.values()) - sum(n for _, n in most)
        kinds += [f"{rest} other{'s' if rest > 1 else ''}"] if rest else []
        message += f"; it contains {', '.join(kinds)}, which are not supported ({_cure(others)})"
    elif captions:
        message += f"; it contains {captions} .txt file{'s' if captions > 1 else ''} only"
    if closed:
        message += f"; {len(closed)} sub-folder{'s' if len(closed) > 1 else ''} cannot be read"
    return message


def _cure(suffixes: Iterable[str]) -> str:
    packed = any(suffix in _PACKED for suffix in suffixes)
    return "unpack them to picture files" if packed else "convert them to PNG or JPEG"

"""Scan: which pictures a dataset holds, which of its files cannot be used, and why."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from acrf_engine.data.captions import read_caption, with_trigger
from acrf_engine.data.errors import DataError, PictureError, printable
from acrf_engine.data.pictures import SUFFIXES, PictureFacts, inspect, load_rgb

__all__ = ["DataError", "Picture", "Progress", "Rejected", "Scan", "Source", "load_rgb", "scan"]

Progress = Callable[[int, int, str], None]
"""Called with (done, total, what), `what` being "pictures" or "captions"; what it raises ends the work."""

_THREADS = 4
_REASONS_SHOWN = 5


class Source(Protocol):
    """One folder of a dataset. `default_caption` is for pictures without a caption file."""

    @property
    def path(self) -> str: ...
    @property
    def default_caption(self) -> str: ...
    @property
    def repeats(self) -> int: ...


@dataclass(frozen=True)
class Picture:
    """A usable picture. Size in pixels after EXIF rotation; sha256 of the file's bytes; caption with the trigger."""

    path: Path
    sha256: str
    width: int
    height: int
    caption: str
    has_caption_file: bool
    repeats: int


@dataclass(frozen=True)
class Rejected:
    """A file that looked like a picture by its name but is left out, and a short reason for people."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Scan:
    """What a dataset holds, in a fixed order: sources as given, in each of them by path."""

    pictures: tuple[Picture, ...]
    rejected: tuple[Rejected, ...]

    @property
    def fingerprint(self) -> str:
        """Identify contents and captions, in order; names of files and folders do not count."""
        facts = [(p.sha256, p.caption) for p in self.pictures]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def scan(sources: Sequence[Source], trigger: str = "", on_progress: Progress | None = None) -> Scan:
    """Find and decode every picture of `sources`, sub-folders included; hidden files and folders are passed over.

    Files that cannot be used, and second copies of the same content, come back in `rejected`. Raises DataError when a
    folder is missing or without pictures, when no picture can be used, and when a caption file cannot be read.
    """
    if not sources:
        raise DataError("dataset: no folder given (name the folder that holds your pictures)")
    found: list[tuple[Source, Path]] = []
    rejected: list[Rejected] = []
    for source in sources:
        paths, closed = _pictures_in(Path(source.path))
        found += [(source, path) for path in paths]
        rejected += closed
    captions = [read_caption(path) for _, path in found]

    pictures: list[Picture] = []
    first_with: dict[str, Path] = {}
    for (source, path), caption, facts in zip(
        found, captions, _inspect_all([path for _, path in found], on_progress), strict=True
    ):
        if isinstance(facts, PictureError):
            rejected.append(Rejected(path, facts.reason))
        elif facts.sha256 in first_with:
            rejected.append(Rejected(path, f"same content as {printable(first_with[facts.sha256])}"))
        else:
            first_with[facts.sha256] = path
            pictures.append(
                Picture(
                    path=path,
                    sha256=facts.sha256,
                    width=facts.width,
                    height=facts.height,
                    caption=with_trigger(
                        " ".join(source.default_caption.split()) if caption is None else caption, trigger
                    ),
                    has_caption_file=caption is not None,
                    repeats=source.repeats,
                )
            )
    if not pictures:
        raise DataError(_none_usable(sources, rejected))
    return Scan(tuple(pictures), tuple(rejected))


def _pictures_in(folder: Path) -> tuple[list[Path], list[Rejected]]:
    """List the files of `folder` that are pictures by suffix, and the sub-folders that cannot be read."""
    shown = printable(folder)
    _must_be_folder(folder)
    closed: list[Rejected] = []

    def on_error(error: OSError) -> None:
        path, why = Path(str(error.filename)), (error.strerror or "unknown error").lower()
        if path == folder:
            raise DataError(f"dataset: {shown} cannot be read: {why}") from error
        closed.append(Rejected(path, f"folder cannot be read: {why}"))

    paths: list[Path] = []
    others: Counter[str] = Counter()
    for path in _walk(folder, on_error):
        if path.suffix.lower() in SUFFIXES:
            paths.append(path)
        else:
            others[path.suffix.lower()] += 1
    if not paths:
        raise DataError(_no_pictures(shown, others, closed))
    return sorted(paths, key=lambda path: path.relative_to(folder).as_posix()), closed


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


def _walk(folder: Path, on_error: Callable[[OSError], None]) -> Iterator[Path]:
    seen: set[tuple[int, int]] = set()
    for here, folders, files in os.walk(folder, onerror=on_error, followlinks=True):
        try:
            status = os.stat(here)
        except OSError as error:
            on_error(error)
            continue
        # A link to a folder above would be walked for ever.
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(here, name) for name in files if not name.startswith("."))


def _inspect_all(paths: Sequence[Path], on_progress: Progress | None) -> Iterator[PictureFacts | PictureError]:
    pool = ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1), thread_name_prefix="scan")
    try:
        for done, facts in enumerate(pool.map(_inspect, paths), start=1):
            if on_progress is not None:
                on_progress(done, len(paths), "pictures")
            yield facts
    finally:
        pool.shutdown(cancel_futures=True)


def _inspect(path: Path) -> PictureFacts | PictureError:
    try:
        if not path.exists():
            return PictureError(path, "a link to nowhere" if path.is_symlink() else "is gone")
        # Opening a named pipe would wait for ever.
        if not path.is_file():
            return PictureError(path, "not a regular file")
        return inspect(path)
    except PictureError as error:
        return error
    except OSError as error:
        return PictureError(path, f"cannot be read: {(error.strerror or str(error)).lower()}")


def _no_pictures(folder: str, others: Counter[str], closed: Sequence[Rejected]) -> str:
    message = f"dataset: {folder} holds no pictures (looked for {' '.join(SUFFIXES)}, in sub-folders too)"
    captions = others.pop(".txt", 0)
    if others:
        most = others.most_common(3)
        kinds = [f"{n} {printable(suffix) or 'nameless'} file{'s' if n > 1 else ''}" for suffix, n in most]
        rest = sum(others.values()) - sum(n for _, n in most)
        kinds += [f"{rest} other{'s' if rest > 1 else ''}"] if rest else []
        message += f"; it contains {', '.join(kinds)}, which are not supported (convert them to PNG or JPEG)"
    elif captions:
        message += f"; it contains {captions} .txt file{'s' if captions > 1 else ''} only"
    if closed:
        message += f"; {len(closed)} sub-folder{'s' if len(closed) > 1 else ''} cannot be read"
    return message


def _none_usable(sources: Sequence[Source], rejected: Sequence[Rejected]) -> str:
    folders = ", ".join(printable(source.path) for source in sources)
    shown = [f"{printable(r.path.name)}: {r.reason}" for r in rejected[:_REASONS_SHOWN]]
    more = f" and {len(rejected) - len(shown)} more" if len(rejected) > len(shown) else ""
    return f"dataset: none of the pictures in {folders} can be used ({'; '.join(shown)}{more})"

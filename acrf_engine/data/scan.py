"""Scan: which pictures a dataset holds, which of its files cannot be used, and why."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from acrf_engine.data.caption_files import CaptionsFiles, Entry
from acrf_engine.data.captions import one_line, read_caption, with_trigger
from acrf_engine.data.errors import DataError, PictureError, printable
from acrf_engine.data.folders import Rejected, list_folder
from acrf_engine.data.masks import ALPHA, Mask, MaskFolder
from acrf_engine.data.pictures import PictureFacts, inspect, load_rgb

__all__ = ["DataError", "Picture", "Progress", "Rejected", "Scan", "Source", "load_rgb", "scan"]

Progress = Callable[[int, int, str], None]
"""Called with (done, total, what), `what` being "pictures", "captions" or "masks"; what it raises ends the work."""

CaptionFrom = Literal["text file", "captions file", "default"]

_THREADS = 4
_SHOWN = 5
_SPLITS = {"train", "validation", "val", "test"}


class Source(Protocol):
    """One folder of a dataset with its options; see `acrf_engine.data_config.DatasetSource`."""

    @property
    def path(self) -> str: ...
    @property
    def default_caption(self) -> str: ...
    @property
    def repeats(self) -> int: ...
    @property
    def weight(self) -> float: ...
    @property
    def caption_extension(self) -> str: ...
    @property
    def captions(self) -> str: ...
    @property
    def prefix(self) -> str: ...
    @property
    def masks(self) -> str: ...
    @property
    def mask_min_weight(self) -> float: ...
    def resolutions(self) -> tuple[int, ...]: ...


@dataclass(frozen=True)
class Picture:
    """A usable picture. Size in pixels after EXIF rotation; sha256 of the file's bytes; caption with the trigger.

    `has_caption_file` says that the caption is its own, from whichever file; `resolutions` is empty where the run's
    holds; `source` is the number of its source, the regularisation set being the last.
    """

    path: Path
    sha256: str
    width: int
    height: int
    caption: str
    has_caption_file: bool
    repeats: int
    weight: float = 1.0
    resolutions: tuple[int, ...] = ()
    mask: Mask | None = None
    regularisation: bool = False
    source: int = 0
    caption_from: CaptionFrom = "default"


@dataclass(frozen=True)
class Scan:
    """What a dataset holds, in a fixed order: sources as given, in each of them by path.

    `notices` are what people should know of files that are used, or of options that do nothing.
    """

    pictures: tuple[Picture, ...]
    rejected: tuple[Rejected, ...]
    notices: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """Identify contents and captions, in order; names of files and folders do not count."""
        facts = [(p.sha256, p.caption) for p in self.pictures]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


@dataclass(frozen=True)
class _Found:
    """A file that is a picture by its name, with what its source says of it."""

    path: Path
    number: int
    caption: str | None
    caption_from: CaptionFrom
    masks: MaskFolder | None


def scan(
    sources: Sequence[Source],
    trigger: str = "",
    on_progress: Progress | None = None,
    regularisation: Source | None = None,
) -> Scan:
    """Find and decode every picture of `sources`, sub-folders included; hidden files and folders are passed over.

    Files that cannot be used, second copies of the same content and captions without a picture come back in `rejected`.
    Raises DataError when a folder is missing or without pictures, when no picture can be used, and when a caption
    cannot be read.
    """
    if not sources:
        raise DataError("dataset: no folder given (name the folder that holds your pictures)")
    every = [*sources, regularisation] if regularisation is not None else list(sources)
    found: list[_Found] = []
    rejected: list[Rejected] = []
    notices: list[str] = []
    for number, source in enumerate(every):
        found += _look_into(source, number, rejected, notices)

    pictures: list[Picture] = []
    first_with: dict[str, Path] = {}
    for item, facts in zip(found, _inspect_all(found, on_progress), strict=True):
        if isinstance(facts, PictureError):
            rejected.append(Rejected(item.path, facts.reason))
        elif facts[0].sha256 in first_with:
            rejected.append(Rejected(item.path, f"same content as {printable(first_with[facts[0].sha256])}"))
        else:
            first_with[facts[0].sha256] = item.path
            source = every[item.number]
            is_regularisation = item.number == len(sources)
            pictures.append(_picture(item, *facts, source, "" if is_regularisation else trigger, is_regularisation))
    if not any(not picture.regularisation for picture in pictures):
        raise DataError(_none_usable(sources, rejected))
    for number, source in enumerate(every):
        of_source = [picture for picture in pictures if picture.source == number]
        if not of_source:
            notices.append(f"{printable(source.path)}: none of its pictures is used")
        if source.masks and (bare := [picture.path for picture in of_source if picture.mask is None]):
            where = "transparency" if source.masks == ALPHA else f"mask in {printable(source.masks)}"
            notices.append(f"no {where}, so the loss counts everywhere: {_names(bare)}")
    if regularisation is not None and not pictures[-1].regularisation:
        raise DataError(_none_usable([regularisation], rejected, "regularisation.path"))
    return Scan(tuple(pictures), tuple(rejected), tuple(notices))


def _look_into(source: Source, number: int, rejected: list[Rejected], notices: list[str]) -> list[_Found]:
    """The pictures of one source by their names, each with its caption."""
    folder = Path(source.path)
    masks = MaskFolder(source.masks, folder, source.mask_min_weight) if source.masks else None
    listing = list_folder(folder, masks.folder if masks is not None else None)
    rejected += [*listing.closed, *listing.unread()]
    if alone := listing.captions_alone(source.caption_extension):
        notices.append(f"no picture beside the caption file: {_names(alone, 'file')}")
    parts = {path.relative_to(folder).parts[0] for path in listing.paths if path.parent != folder}
    if len(splits := sorted(parts & _SPLITS)) > 1:
        notices.append(
            f"{printable(folder)}: the splits {', '.join(splits)} are all trained on (give the folder of one as path)"
        )
    files = CaptionsFiles()
    if source.captions:
        files.read(Path(source.captions), [folder, Path(source.captions).parent])
    else:
        for file in listing.metadata:
            files.read(file, [file.parent])
    found = []
    without: list[Path] = []
    twice: list[Path] = []
    for path in listing.paths:
        beside, entry = read_caption(path, source.caption_extension), files.of(path)
        found.append(_Found(path, number, *_choose(beside, entry), masks))
        if files.entries and beside is None and (entry is None or entry.text is None):
            without.append(path)
        if beside is not None and entry is not None and entry.text not in (None, beside):
            twice.append(path)
    rejected += [Rejected(entry.picture, f"named in {entry.where}, but no such picture") for entry in files.unused()]
    if without:
        notices.append(f"no caption in the captions file: {_names(without)}")
    if twice:
        notices.append(f"the text file beside the picture counts, not the captions file: {_names(twice)}")
    return found


def _choose(beside: str | None, entry: Entry | None) -> tuple[str | None, CaptionFrom]:
    """The text file beside a picture counts before its entry in a captions file."""
    if beside is not None:
        return beside, "text file"
    if entry is not None and entry.text is not None:
        return entry.text, "captions file"
    return None, "default"


def _picture(
    item: _Found, facts: PictureFacts, mask: Mask | None, source: Source, trigger: str, regularisation: bool
) -> Picture:
    text = (one_line(source.default_caption) or "") if item.caption is None else item.caption
    return Picture(
        path=item.path,
        sha256=facts.sha256,
        width=facts.width,
        height=facts.height,
        caption=with_trigger(f"{source.prefix} {text}", trigger),
        has_caption_file=item.caption is not None,
        repeats=source.repeats,
        weight=source.weight,
        resolutions=source.resolutions(),
        mask=mask,
        regularisation=regularisation,
        source=item.number,
        caption_from=item.caption_from,
    )


def _inspect_all(
    found: Sequence[_Found], on_progress: Progress | None
) -> Iterator[tuple[PictureFacts, Mask | None] | PictureError]:
    pool = ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1), thread_name_prefix="scan")
    try:
        for done, facts in enumerate(pool.map(_inspect, found), start=1):
            if on_progress is not None:
                on_progress(done, len(found), "pictures")
            yield facts
    finally:
        pool.shutdown(cancel_futures=True)


def _inspect(item: _Found) -> tuple[PictureFacts, Mask | None] | PictureError:
    path = item.path
    try:
        if not path.exists():
            return PictureError(path, "a link to nowhere" if path.is_symlink() else "is gone")
        # Opening a named pipe would wait for ever.
        if not path.is_file():
            return PictureError(path, "not a regular file")
        facts = inspect(path)
        mask = item.masks.of(path, facts.sha256, (facts.width, facts.height)) if item.masks is not None else None
        return facts, mask
    except PictureError as error:
        return error
    except OSError as error:
        return PictureError(path, f"cannot be read: {(error.strerror or str(error)).lower()}")


def _names(paths: Sequence[Path], what: str = "picture") -> str:
    """How many pictures, or what else they are, and the first of them by name."""
    shown = ", ".join(printable(path.name) for path in paths[:_SHOWN])
    more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
    return f"{len(paths)} {what}{'s' if len(paths) > 1 else ''} ({shown}{more})"


def _none_usable(sources: Sequence[Source], rejected: Sequence[Rejected], key: str = "dataset") -> str:
    folders = ", ".join(printable(source.path) for source in sources)
    shown = [f"{printable(r.path.name)}: {r.reason}" for r in rejected[:_SHOWN]]
    more = f" and {len(rejected) - len(shown)} more" if len(rejected) > len(shown) else ""
    return f"{key}: none of the pictures in {folders} can be used ({'; '.join(shown)}{more})"

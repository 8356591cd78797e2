"""Paths as they are typed: completion, and a cheap count of a picture folder. Nothing here draws."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from textual.suggester import Suggester

MOST_CANDIDATES = 200
LONGEST_COUNT_SECONDS = 5.0
ROUGHLY = "at least "


def candidates(text: str, *, folders_only: bool = True) -> list[str]:
    """What `text` may go on to, as whole paths written the way it was begun; folders end in a slash.

    Hidden entries come only where the last part begins with a dot. What cannot be read completes to nothing.
    """
    if text == "~":
        return ["~/"]
    parent_text, slash, begun = text.rpartition("/")
    parent = Path(os.path.expanduser(f"{parent_text}{slash}") or ".")
    found: list[str] = []
    try:
        with os.scandir(parent) as entries:
            for entry in entries:
                if not entry.name.startswith(begun) or (entry.name.startswith(".") and not begun.startswith(".")):
                    continue
                folder = entry.is_dir()
                if folder or not folders_only:
                    found.append(f"{parent_text}{slash}{entry.name}{'/' if folder else ''}")
                if len(found) >= MOST_CANDIDATES:
                    break
    except OSError:
        return []
    return sorted(found)


def holds_what_is_wanted(text: str) -> bool:
    """Whether a finished path is a folder of pictures or a model itself, so that there is no need to go deeper."""
    from acrf_engine.config import PICTURE_SUFFIXES

    if not text.endswith("/"):
        return False
    try:
        with os.scandir(os.path.expanduser(text)) as entries:
            names = [entry.name.lower() for entry in itertools.islice(entries, 2000)]
    except OSError:
        return False
    return any(name == "model_index.json" or name.endswith(PICTURE_SUFFIXES) for name in names)


def common_beginning(paths: Sequence[str]) -> str:
    """What all of these begin with."""
    first, last = min(paths), max(paths)
    end = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return first[:end]


class PathSuggester(Suggester):
    """Suggests the first folder that what was typed may go on to."""

    def __init__(self) -> None:
        super().__init__(use_cache=False, case_sensitive=True)

    async def get_suggestion(self, value: str) -> str | None:
        """The suggestion for `value`; nothing for an empty field or a finished folder."""
        import asyncio

        if not value or value.endswith("/"):
            return None
        found = await asyncio.to_thread(candidates, value)
        return found[0].rstrip("/") if found else None


@dataclass(frozen=True, slots=True)
class FolderCount:
    """What a picture folder holds by its names alone; `problem` where it cannot be used."""

    pictures: int = 0
    without_caption: int = 0
    problem: str = ""
    complete: bool = True

    @property
    def sentence(self) -> str:
        """For people, in one line."""
        if self.problem:
            return self.problem
        more = "" if self.complete else ROUGHLY
        captions = f"{self.without_caption} without caption" if self.without_caption else "each with a caption"
        return f"{more}{self.pictures:,} picture{'s' if self.pictures != 1 else ''}, {captions}"


def count_pictures(text: str, suffixes: Sequence[str], cancelled: Callable[[], bool] = lambda: False) -> FolderCount:
    """Count pictures and missing captions below a folder, by name; the check decodes them later."""
    folder = Path(os.path.expanduser(text.strip()))
    if not folder.exists():
        return FolderCount(problem="there is no such folder")
    if not folder.is_dir():
        return FolderCount(problem="this is a file: give the folder it is in")
    pictures = captioned = others = 0
    complete = True
    end = time.monotonic() + LONGEST_COUNT_SECONDS
    try:
        with os.scandir(folder):  # os.walk would pass over a folder that may not be read
            pass
        for _, folders, names in os.walk(folder):
            folders[:] = [name for name in folders if not name.startswith(".")]
            visible = [name for name in names if not name.startswith(".")]
            captions = {os.path.splitext(name)[0] for name in visible if name.lower().endswith(".txt")}
            here = [name for name in visible if name.lower().endswith(tuple(suffixes))]
            pictures += len(here)
            captioned += sum(os.path.splitext(name)[0] in captions for name in here)
            others += len(visible) - len(here)
            if cancelled() or time.monotonic() > end:
                complete = False
                break
    except OSError as error:
        return FolderCount(problem=f"cannot be read ({error.strerror})")
    if not pictures and complete:
        what = f"only {others} other files" if others else "it is empty"
        return FolderCount(problem=f"no pictures in it ({', '.join(suffixes)}): {what}")
    return FolderCount(pictures, pictures - captioned, complete=complete)

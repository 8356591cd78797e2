"""The trash: what a user deletes lies beside where it was, in a hidden folder, until it is emptied or restored.

`runs/night` goes to `runs/.trash/night-20261103-101500`. It stays on the same file system, so that deleting and
restoring are one rename each; hidden folders are not runs.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from acrf_engine.run.folder import RunError, RunFolder, Status, remembered_folders

TRASH = ".trash"
STAMP = "%Y%m%d-%H%M%S"
NAME = re.compile(r"(?P<name>.+?)-(?P<stamp>\d{8}-\d{6})(?:\.\d+)?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Trashed:
    """Something in the trash: where it lies, what it was called, and when it was deleted (Unix seconds)."""

    path: Path
    name: str
    when: float

    @property
    def origin(self) -> Path:
        """Where it was."""
        return self.path.parent.parent / self.name


def trash_run(folder: RunFolder) -> Trashed:
    """Move an ended run to the trash. Raises RunError for an active one, and where it cannot be moved."""
    try:
        status = folder.read_status()
    except RunError:  # one that cannot be read may be deleted too
        status = Status(state="unreadable")
    if status.active:
        state = "waiting for a device" if status.waiting else status.state
        raise RunError(f"run {folder.name} is {state}: stop it first (`acrf-tui control {folder.name} stop`)")
    if not folder.path.is_dir():
        raise RunError(f"{folder.path}: there is no such run any more")
    try:
        with folder.hold(patience_s=0.2):
            return trash_path(folder.path)
    except OSError as error:
        raise RunError(f"{folder.path}: cannot be moved to the trash ({error.strerror})") from None


def trash_path(path: Path) -> Trashed:
    """Move a file or folder to the trash beside it. Raises RunError where it cannot be moved."""
    trash, now = path.parent / TRASH, time.time()
    try:
        trash.mkdir(mode=0o700, exist_ok=True)
        base = f"{path.name}-{time.strftime(STAMP, time.localtime(now))}"
        target, number = trash / base, 2
        while os.path.lexists(target):
            target, number = trash / f"{base}.{number}", number + 1
        path.rename(target)
    except OSError as error:
        raise RunError(f"{path}: cannot be moved to the trash ({error.strerror})") from None
    return Trashed(target, path.name, now)


def trash_folders(runs_dir: Path) -> list[Path]:
    """Every trash that may hold runs: of `runs_dir`, and of where the index remembers runs."""
    return [folder / TRASH for folder in dict.fromkeys([runs_dir.absolute(), *remembered_folders()])]


def trashed(trashes: Iterable[Path]) -> list[Trashed]:
    """What lies in these trash folders, newest first. What was put there by other means is passed over."""
    found = []
    for trash in trashes:
        with contextlib.suppress(OSError):
            found += [item for path in trash.iterdir() if (item := _item(path)) is not None]
    return sorted(found, key=lambda item: (-item.when, item.path.name))


def restore(item: Trashed) -> Path:
    """Put something back where it was. Raises RunError where that place is taken, or it is not there any more."""
    if os.path.lexists(item.origin):
        raise RunError(f"{item.origin} exists again: rename that one first, then restore")
    try:
        item.path.rename(item.origin)
    except FileNotFoundError:
        raise RunError(f"{item.name} is not in the trash any more") from None
    except OSError as error:
        raise RunError(f"{item.origin}: cannot be restored ({error.strerror})") from None
    return item.origin


def size_of(path: Path) -> int:
    """Bytes that a file or folder takes on its disk."""
    total = 0
    for folder, _, files in os.walk(path):
        for name in files:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(folder, name)).st_blocks * 512
    if not total:
        with contextlib.suppress(OSError):
            total = path.lstat().st_blocks * 512
    return total


def empty(items: Iterable[Trashed]) -> list[str]:
    """Delete these for good; returns what could not be deleted, with the reason."""
    failed = []
    for item in items:
        if item.path.parent.name != TRASH:
            raise ValueError(f"{item.path} is not in a trash")
        try:
            if item.path.is_dir() and not item.path.is_symlink():
                shutil.rmtree(item.path)
            else:
                item.path.unlink(missing_ok=True)
        except OSError as error:
            failed.append(f"{item.path}: {error.strerror}")
    return failed


def _item(path: Path) -> Trashed | None:
    found = NAME.fullmatch(path.name)
    if found is None:
        return None
    try:
        when = time.mktime(time.strptime(found["stamp"], STAMP))
    except (ValueError, OverflowError):
        return None
    return Trashed(path, found["name"], when)

"""The line of a user's runs for the devices of this machine: who uses which, and who waits for it.

One small JSON file in the user's state folder, changed under a lock. A place in it counts only while the supervisor of
its run lives (it holds the run's lock), so that a kill or a reboot leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import platformdirs

from acrf_engine.run.folder import APP_NAME, RunError, RunFolder, write_private

LOCK_PATIENCE_S = 3.0


@dataclass
class Place:
    """A run in the line. `wanted`: devices that would do, the best first; `using`: what it has, empty if it waits.

    A run of several processes has `more` devices beside that one.
    """

    run: str
    wanted: list[str]
    using: str = ""
    more: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return Path(self.run).name


@dataclass(frozen=True)
class Turn:
    """What a run got: `devices`, or its number in the line (1: next) and the run that uses what it wants."""

    devices: tuple[str, ...] = ()
    number: int = 0
    behind: str = ""

    @property
    def device(self) -> str:
        """The first, or all there is to have; empty for a run that waits."""
        return self.devices[0] if self.devices else ""


def take(folder: RunFolder, wanted: Sequence[str], *, share: bool = False, count: int = 1) -> Turn:
    """Take the first `count` free devices of `wanted`, or a place in the line for them; asked again, the same place.

    With `share` the first ones are taken whoever uses them. Raises OSError where the line cannot be read or written.
    """
    with _line() as places:
        own = _place_of(places, folder)
        if own is None:
            own = Place(str(folder.path), list(wanted))
            places.append(own)
        own.wanted = list(wanted)
        others = [place for place in places if place is not own]
        ahead = [place for place in places[: places.index(own)] if not place.using]
        taken = {device for place in others for device in (place.using, *place.more)}
        taken |= {device for place in ahead for device in place.wanted}
        free = [device for device in wanted if share or device not in taken]
        own.using, own.more = (free[0], free[1:count]) if len(free) >= count else ("", [])
        if own.using:
            return Turn((own.using, *own.more))
        holder = next((place.name for place in others if {place.using, *place.more} & set(wanted)), "")
        rivals = [place for place in ahead if set(place.wanted) & set(wanted)]
        return Turn(number=len(rivals) + 1, behind=holder or (rivals[-1].name if rivals else ""))


def leave(folder: RunFolder) -> None:
    """Give back what the run has, or its place in the line."""
    with _line() as places:
        places[:] = [place for place in places if place.run != str(folder.path)]


def places() -> list[Place]:
    """Everyone in the line: who uses a device and who waits, in order. Empty where there is no line."""
    try:
        return _living(_read(line_file()))
    except OSError:
        return []


def holders(device: str) -> list[str]:
    """Names of the runs that use a device."""
    return [place.name for place in places() if device in (place.using, *place.more)]


def move(folder: RunFolder, number: int) -> int:
    """Make a waiting run the `number`th in the line (from 1); returns its number. RunError if it does not wait."""
    with _line() as places:
        own = _place_of(places, folder)
        if own is None or own.using:
            raise RunError(f"run {folder.name} does not wait in the line (see `acrf-tui queue`)")
        waiting = [place for place in places if not place.using and place is not own]
        index = min(max(number, 1), len(waiting) + 1) - 1
        waiting.insert(index, own)
        places[:] = [place for place in places if place.using] + waiting
        return index + 1


def line_file() -> Path:
    """Where the line is kept."""
    return platformdirs.user_state_path(APP_NAME) / "devices.json"


def _place_of(places: Sequence[Place], folder: RunFolder) -> Place | None:
    return next((place for place in places if place.run == str(folder.path)), None)


def _living(places: Sequence[Place]) -> list[Place]:
    return [place for place in places if RunFolder(place.run).is_held()]


def _read(path: Path) -> list[Place]:
    try:
        return [
            Place(str(raw["run"]), list(raw["wanted"]), str(raw["using"]), list(raw.get("more", [])))
            for raw in json.loads(path.read_text("utf-8"))
        ]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError):
        return []  # nobody's work depends on it: every waiting run takes its place again


def _text(places: Sequence[Place]) -> str:
    return json.dumps([asdict(place) for place in places], indent=1) + "\n"


@contextlib.contextmanager
def _line() -> Iterator[list[Place]]:
    """The living places, to be changed; written back at the end where they differ."""
    path = line_file()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fd = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        end = time.monotonic() + LOCK_PATIENCE_S
        while True:  # not a blocking lock: its holder may be a stopped process
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.01)
        before = _read(path)
        written = _text(before)
        now = _living(before)
        yield now
        if (text := _text(now)) != written:
            write_private(path, text)
    finally:
        os.close(fd)

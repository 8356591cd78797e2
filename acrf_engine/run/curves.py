"""A run's numbers at a bounded number of steps, read without reading them all: for lists, comparisons and estimates.

Everything here takes a run folder, opens its telemetry read-only and answers with nothing where there is nothing.
"""

from __future__ import annotations

import contextlib
import math
import sqlite3
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from acrf_engine.run.folder import RunFolder

WHOLE = 1000
"""A sparkline of at most this many steps is made of all of them."""
WINDOW = 8
"""How many steps stand for a part of a longer history."""
MOST_POINTS = 4000
"""A curve holds at most twice as many."""
COLUMNS = (
    "step",
    "time",
    "loss_balanced",
    "loss",
    "loss_char",
    "loss_cos",
    "loss_fft",
    "lr",
    "grad_norm",
    "step_time_s",
)


def _column() -> array[float]:
    return array("d")


@dataclass(slots=True)
class Curve:
    """A run's numbers at every `stride`-th step and at the newest one, in step order; NaN where one was not finite.

    `elapsed` is training time in seconds: the steps' own times, without pauses and the time between attempts. Between
    steps that are not read it is estimated from the neighbours.
    """

    stride: int = 1
    step: array[float] = field(default_factory=_column)
    time: array[float] = field(default_factory=_column)
    loss_balanced: array[float] = field(default_factory=_column)
    loss: array[float] = field(default_factory=_column)
    loss_char: array[float] = field(default_factory=_column)
    loss_cos: array[float] = field(default_factory=_column)
    loss_fft: array[float] = field(default_factory=_column)
    lr: array[float] = field(default_factory=_column)
    grad_norm: array[float] = field(default_factory=_column)
    step_time_s: array[float] = field(default_factory=_column)
    elapsed: array[float] = field(default_factory=_column)

    def __len__(self) -> int:
        return len(self.step)

    def append(self, row: tuple[float | None, ...]) -> None:
        """Add one step: its columns as they are stored, None for what was not finite."""
        values = [math.nan if value is None else value for value in row]
        before = self.step[-1] if len(self) else values[0] - 1
        for name, value in zip(COLUMNS, values, strict=True):
            getattr(self, name).append(value)
        seconds = self.step_time_s[-1] if self.step_time_s[-1] > 0 else 0.0  # NaN is not above 0 either
        if len(self) > 1 and self.stride > 1 and self.step_time_s[-2] > 0:
            seconds = (seconds + self.step_time_s[-2]) / 2
        last = self.elapsed[-1] if self.elapsed else 0.0
        self.elapsed.append(last + seconds * (values[0] - before))

    def step_seconds(self) -> float:
        """The median step time, NaN where there is none."""
        times = [value for value in self.step_time_s if value > 0]
        return _median(times) if times else math.nan


def sparkline(folder: RunFolder, points: int) -> list[float]:
    """The mean anchor-balanced loss in at most `points` equal parts of the steps, oldest first.

    NaN where a loss that was looked at in a part is not finite. The last WINDOW steps of each part of a long history
    stand for it, so that a million steps cost as much as a thousand.
    """
    with _opened(folder) as db:
        ends = _ends(db)
        if ends is None or points < 1:
            return []
        first, last = ends
        query = "SELECT loss_balanced, loss FROM steps WHERE step >= ? AND step <= ? ORDER BY step DESC LIMIT ?"
        parts = min(points, int(last - first) + 1)
        span = (last - first + 1) / parts
        found = []
        for part in range(parts):
            low, high = first + part * span, first + (part + 1) * span
            limit = WHOLE if last - first < WHOLE else WINDOW
            rows = db.execute(query, (math.ceil(low), math.ceil(high) - 1, limit)).fetchall()
            if rows:
                found.append(_mean(rows))
        return found
    return []


def read_curve(folder: RunFolder, known: Curve | None = None) -> Curve:
    """The run's curve as it is now; goes on from `known` where that is still true, and then changes it."""
    with _opened(folder) as db:
        ends = _ends(db)
        if ends is None:
            return Curve()
        first, last = ends
        curve = known if known is not None and len(known) else Curve(_stride(first, last))
        if curve is known and not _continues(db, curve, first, last):
            curve = Curve(_stride(first, last))
        columns = ", ".join(COLUMNS)
        if curve.stride == 1:
            after = curve.step[-1] if len(curve) else first - 1
            for row in db.execute(f"SELECT {columns} FROM steps WHERE step > ? ORDER BY step", (after,)):
                curve.append(row)
            return curve
        query = f"SELECT {columns} FROM steps WHERE step >= ? ORDER BY step LIMIT 1"
        wanted = curve.step[-1] + curve.stride if len(curve) else first
        while wanted <= last:
            row = db.execute(query, (wanted,)).fetchone()
            if row is None:
                break
            curve.append(row)
            wanted = row[0] + curve.stride
        return curve
    return Curve()


def stamp_of(folder: RunFolder) -> tuple[int, ...]:
    """Another value whenever the telemetry may hold something new."""
    return (*_times(folder.telemetry), *_times(_log_of(folder)))


def typical_step_time(folder: RunFolder, newest: int = 200, warm_up: int = 2) -> tuple[float, int]:
    """The median of the newest step times in seconds, the first `warm_up` steps left out, and of how many it is."""
    with _opened(folder) as db:
        query = "SELECT step_time_s FROM steps WHERE step > ? AND step_time_s > 0 ORDER BY step DESC LIMIT ?"
        times = [row[0] for row in db.execute(query, (warm_up, newest))]
        return (_median(times), len(times)) if times else (math.nan, 0)
    return math.nan, 0


@contextlib.contextmanager
def _opened(folder: RunFolder) -> Iterator[sqlite3.Connection]:
    """The telemetry. What is missing, new or damaged ends the block without a word: the caller then has nothing."""
    # A reader of a write-ahead log leaves files behind; where nobody writes and nothing is in the log it need not.
    still = not _times(_log_of(folder)) and not folder.is_held()
    try:
        options = "mode=ro&immutable=1" if still else "mode=ro"
        db = sqlite3.connect(f"{folder.telemetry.as_uri()}?{options}", uri=True, timeout=1.0)
    except (sqlite3.Error, ValueError):
        db = sqlite3.connect(":memory:")
    with contextlib.closing(db), contextlib.suppress(sqlite3.DatabaseError, TypeError):
        yield db


def _log_of(folder: RunFolder) -> Path:
    return folder.telemetry.with_name(f"{folder.telemetry.name}-wal")


def _times(path: Path) -> tuple[int, ...]:
    """Change time and size; nothing for a file that is absent or empty: an empty log is the trace of a reader."""
    with contextlib.suppress(OSError):
        found = path.stat()
        return (found.st_mtime_ns, found.st_size) if found.st_size else ()
    return ()


def _ends(db: sqlite3.Connection) -> tuple[float, float] | None:
    row = db.execute("SELECT (SELECT min(step) FROM steps), (SELECT max(step) FROM steps)").fetchone()
    return None if row[0] is None else (float(row[0]), float(row[1]))


def _stride(first: float, last: float) -> int:
    return max(1, math.ceil((last - first + 1) / MOST_POINTS))


def _continues(db: sqlite3.Connection, curve: Curve, first: float, last: float) -> bool:
    """Whether the run still holds what was read of it; a resume from an older checkpoint made steps anew."""
    if len(curve) > 2 * MOST_POINTS or curve.step[0] != first or curve.step[-1] > last:
        return False
    row = db.execute("SELECT time FROM steps WHERE step = ?", (curve.step[-1],)).fetchone()
    return row is not None and row[0] == curve.time[-1]


def _mean(rows: list[tuple[float | None, float | None]]) -> float:
    values = [balanced for balanced, loss in rows if balanced is not None and loss is not None]
    return math.fsum(values) / len(values) if len(values) == len(rows) else math.nan


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2

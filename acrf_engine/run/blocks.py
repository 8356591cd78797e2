"""The older part of a long run in blocks, so that attaching to a million steps reads no million rows.

A block stands for up to BLOCK_STEPS steps. It is kept as ROWS rows of the same columns that a chart draws as it would
all its steps: where dot columns hold whole blocks, first, lowest, highest and last value and the gaps are the same.
Triggers take a block away with any change of its steps, so what is kept is never wrong; what is missing is made anew.
"""

from __future__ import annotations

import json
import math
import sqlite3
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from acrf_engine.run.columns import STEP_COLUMNS, StepColumns

BLOCK_STEPS = 128
ROWS = 7
ANCHOR_BUCKETS = 64
FINE_ANCHOR_STEPS = 4096
"""Up to so many steps the map over anchors is counted from the steps themselves, in buckets finer than blocks."""

MEANS = frozenset({"loss_char", "loss_cos", "loss_fft"})
"""Columns that charts draw as a running mean: a block keeps their mean, which its extremes would not give."""
EVEN = frozenset({"step", "time", "epoch"})
"""Columns that only grow: from the first value to the last."""

_BLOCK = f"CAST({{}}.step AS INTEGER) / {BLOCK_STEPS}"
SCHEMA = f"""
CREATE TABLE IF NOT EXISTS blocks (block INTEGER PRIMARY KEY, body BLOB);
CREATE TABLE IF NOT EXISTS block_anchors (
    block INTEGER, anchor INTEGER, draws INTEGER, loss_sum REAL, finite INTEGER,
    PRIMARY KEY (block, anchor)) WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS step_added AFTER INSERT ON steps BEGIN
    DELETE FROM blocks WHERE block = {_BLOCK.format("new")}; END;
CREATE TRIGGER IF NOT EXISTS step_changed AFTER UPDATE ON steps BEGIN
    DELETE FROM blocks WHERE block = {_BLOCK.format("old")}; END;
CREATE TRIGGER IF NOT EXISTS step_gone AFTER DELETE ON steps BEGIN
    DELETE FROM blocks WHERE block = {_BLOCK.format("old")}; END;
CREATE TRIGGER IF NOT EXISTS block_gone AFTER DELETE ON blocks BEGIN
    DELETE FROM block_anchors WHERE block = old.block; END;
"""

_NAMES = ", ".join(f"ifnull({name}, 9e999)" for name in STEP_COLUMNS)
_COLUMN_BYTES = ROWS * 8
_BODY_BYTES = _COLUMN_BYTES * len(STEP_COLUMNS)

AnchorRow = tuple[int, int, int, int, float]
"""First step, last step, anchor, draws, mean unweighted loss (NaN: none was finite)."""


def block_of(step: float) -> int:
    """The block that holds a step."""
    return int(step) // BLOCK_STEPS


# ---- a block of steps in a few rows ----------------------------------------------------------------------------------


def condensed(steps: StepColumns) -> StepColumns:
    """ROWS rows that draw as `steps` (at least one) do: a gap before, first, extremes with a gap between, last, a gap.

    Where there is no gap the row repeats its neighbour, which draws nothing. Every column has its own extremes, in the
    order in which they came.
    """
    return StepColumns(*(_condensed_column(name, getattr(steps, name)) for name in STEP_COLUMNS))


def _condensed_column(name: str, values: Sequence[float]) -> array[float]:
    if name in EVEN:
        first, last = values[0], values[-1]
        between = [first + (last - first) * row / (ROWS - 1) for row in range(1, ROWS - 1)]
        if name == "step" and last - first >= ROWS:
            between = [float(round(step)) for step in between]
        return array("d", (first, *between, last))
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return array("d", [math.nan] * ROWS)
    if name in MEANS:
        first = early = late = last = math.fsum(value / len(finite) for value in finite)  # no sum overflows
    else:
        first, last, low, high = finite[0], finite[-1], min(finite), max(finite)
        early, late = (low, high) if finite.index(low) <= finite.index(high) else (high, low)
    gap_before, gap_after = not math.isfinite(values[0]), not math.isfinite(values[-1])
    gap_inside = len(finite) < len(values) and _has_gap_inside(values)
    return array(
        "d",
        (
            math.nan if gap_before else first,
            first,
            early,
            math.nan if gap_inside else early,
            late,
            last,
            math.nan if gap_after else last,
        ),
    )


def _has_gap_inside(values: Sequence[float]) -> bool:
    finite = [index for index, value in enumerate(values) if math.isfinite(value)]
    return finite[-1] - finite[0] >= len(finite)


def _packed(rows: StepColumns) -> bytes:
    return b"".join(getattr(rows, name).tobytes() for name in STEP_COLUMNS)


# ---- writing ---------------------------------------------------------------------------------------------------------


def store(db: sqlite3.Connection, block: int) -> None:
    """Make a block anew from its steps, in the caller's transaction."""
    first, last = block * BLOCK_STEPS, (block + 1) * BLOCK_STEPS
    rows = db.execute(
        f"SELECT {_NAMES}, pictures FROM steps WHERE step >= ? AND step < ? ORDER BY step", (first, last)
    ).fetchall()
    if not rows:
        return
    columns = StepColumns(*(_restored(column) for column in zip(*(row[:-1] for row in rows), strict=True)))
    counted = count_anchors((block, row[-1]) for row in rows)
    db.execute("DELETE FROM blocks WHERE block = ?", (block,))
    db.execute("INSERT INTO blocks VALUES (?, ?)", (block, _packed(condensed(columns))))
    db.executemany("INSERT INTO block_anchors VALUES (?, ?, ?, ?, ?)", [(*key, *sums) for key, sums in counted.items()])


def missing(db: sqlite3.Connection) -> list[int]:
    """Blocks before the newest step's that are not kept, oldest first."""
    top = db.execute("SELECT max(step) FROM steps").fetchone()[0]
    if top is None:
        return []
    newest = block_of(top)
    if db.execute("SELECT count(*) FROM blocks WHERE block < ?", (newest,)).fetchone()[0] >= newest:
        return []
    have = f"SELECT DISTINCT CAST(step AS INTEGER) / {BLOCK_STEPS} AS block FROM steps"
    query = f"SELECT block FROM ({have}) WHERE block < ? AND block NOT IN (SELECT block FROM blocks) ORDER BY block"
    return [row[0] for row in db.execute(query, (newest,))]


def total_anchors(db: sqlite3.Connection) -> list[tuple[int, int, float, int]]:
    """Anchor, draws, sum of finite losses and their number over the run; steps that are in no block are parsed."""
    query = "SELECT anchor, sum(draws), sum(loss_sum), sum(finite) FROM block_anchors GROUP BY anchor"
    totals = {anchor: found for anchor, *found in db.execute(query)}
    inside = f"CAST(step AS INTEGER) / {BLOCK_STEPS} IN (SELECT block FROM blocks)"
    loose = db.execute(f"SELECT 0, pictures FROM steps WHERE NOT {inside}")
    for (_, anchor), found in count_anchors(loose).items():
        totals[anchor] = _added(totals.get(anchor), found)
    return [(anchor, int(draws), loss_sum, int(finite)) for anchor, (draws, loss_sum, finite) in totals.items()]


def _added(known: list[float] | None, found: list[float]) -> list[float]:
    return found if known is None else [a + b for a, b in zip(known, found, strict=True)]


def count_anchors(pictures: Iterable[tuple[int, str]]) -> dict[tuple[int, int], list[float]]:
    """Draws, sum of finite losses and their number, by (key, anchor), of pairs of a key and a step's pictures."""
    counted: dict[tuple[int, int], list[float]] = {}
    for key, text in pictures:
        try:
            body = json.loads(text)
            pairs = list(zip(body["anchors"], body["losses"], strict=True))
        except (ValueError, TypeError, KeyError):  # of a damaged history: the step is there, its pictures are lost
            continue
        for anchor, loss in pairs:
            sums = counted.setdefault((key, anchor), [0, 0.0, 0])
            sums[0] += 1
            if loss is not None:
                sums[1] += loss
                sums[2] += 1
    return counted


# ---- reading ---------------------------------------------------------------------------------------------------------


def read_steps(db: sqlite3.Connection, where: str = "", *parameters: float) -> StepColumns:
    """Steps themselves; `where` is what follows in the query, with its parameters."""
    columns = [array("d") for _ in STEP_COLUMNS]
    cursor = db.execute(f"SELECT {_NAMES} FROM steps {where}", parameters)
    while rows := cursor.fetchmany(20_000):
        for column, values in zip(columns, zip(*rows, strict=True), strict=True):
            column.extend(values)
    for column in columns:
        if math.inf in column:
            column[:] = _restored(column)
    return StepColumns(*columns)


def read_long(db: sqlite3.Connection, whole: float, newest: int, samples: int) -> tuple[StepColumns, float]:
    """Columns of a run of any length, and the step from which on they hold every step.

    A run of up to `whole` steps comes whole (0); of a longer one the `newest` steps do, and the rest in blocks. Where
    blocks are missing, `samples` of their steps stand for them.
    """
    low, top = db.execute("SELECT (SELECT min(step) FROM steps), (SELECT max(step) FROM steps)").fetchone()
    if low is None or top - low < whole:
        return read_steps(db, "ORDER BY step"), 0.0
    seam = block_of(top - newest)
    columns = StepColumns()
    expected = block_of(low)
    lost: list[tuple[int, int]] = []
    runs: list[list[bytes]] = [[]]
    query = "SELECT block, body FROM blocks WHERE block < ? AND length(body) = ? ORDER BY block"
    for block, body in _known(db, query, seam, _BODY_BYTES):
        if block > expected:
            lost.append((expected, block))
            runs.append([])
        runs[-1].append(body)
        expected = block + 1
    if expected < seam:
        lost.append((expected, seam))
        runs.append([])
    stride = 1 + sum(end - begin for begin, end in lost) * BLOCK_STEPS // samples
    for bodies, gap in zip(runs, [*lost, None], strict=True):
        columns.extend(_unpacked(bodies))
        if gap is not None:
            begin, end = (float(block * BLOCK_STEPS) for block in gap)
            chosen = "WHERE step >= ? AND step < ? AND CAST(step AS INTEGER) % ? = 0 ORDER BY step"
            columns.extend(read_steps(db, chosen, begin, end, stride))
    columns.extend(read_steps(db, "WHERE step >= ? ORDER BY step", seam * BLOCK_STEPS))
    return columns, float(seam * BLOCK_STEPS)


def _unpacked(bodies: list[bytes]) -> StepColumns:
    columns = []
    for index in range(len(STEP_COLUMNS)):
        part = slice(index * _COLUMN_BYTES, (index + 1) * _COLUMN_BYTES)
        column = array("d")
        column.frombytes(b"".join(body[part] for body in bodies))
        columns.append(column)
    return StepColumns(*columns)


def read_anchor_map(db: sqlite3.Connection) -> list[AnchorRow]:
    """Draws and mean loss of every anchor over the run, in at most ANCHOR_BUCKETS buckets of steps, oldest first."""
    low, top = db.execute("SELECT (SELECT min(step) FROM steps), (SELECT max(step) FROM steps)").fetchone()
    if low is None:
        return []
    fine = top - low < FINE_ANCHOR_STEPS
    width = 1 if fine else BLOCK_STEPS
    while int(top) // width - int(low) // width >= ANCHOR_BUCKETS:
        width *= 2
    sums: dict[tuple[int, int], list[float]] = {}
    begin = 0
    if not fine:
        query = "SELECT block * ? / ?, anchor, sum(draws), sum(loss_sum), sum(finite) FROM block_anchors GROUP BY 1, 2"
        for bucket, anchor, *found in _known(db, query, BLOCK_STEPS, width):
            sums[bucket, anchor] = found
        begin = block_of(top) * BLOCK_STEPS  # the newest block is still open
    query = "SELECT CAST(step AS INTEGER) / ?, pictures FROM steps WHERE step >= ?"
    for key, found in count_anchors(db.execute(query, (width, begin))).items():
        sums[key] = _added(sums.get(key), found)
    return [
        (
            max(int(low), bucket * width),
            min(int(top), (bucket + 1) * width - 1),
            anchor,
            int(draws),
            loss_sum / finite if finite else math.nan,
        )
        for (bucket, anchor), (draws, loss_sum, finite) in sorted(sums.items())
    ]


def _known(db: sqlite3.Connection, query: str, *parameters: int) -> Iterator[tuple[Any, ...]]:
    """Rows of a query on the blocks; none in a history that was begun before there were any."""
    try:
        yield from db.execute(query, parameters)
    except sqlite3.OperationalError as error:
        if "no such table" not in str(error):
            raise


def _restored(values: Iterable[float]) -> array[float]:
    return array("d", (math.nan if value == math.inf else value for value in values))

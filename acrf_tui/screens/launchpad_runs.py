"""Runs as the launchpad lists them: one summary each, in aligned columns. Nothing here draws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.cells import cell_len

from acrf_engine.run.folder import RunError, RunFolder, list_runs
from acrf_engine.run.states import ACTIVE_STATES, RESUMABLE_STATES
from acrf_tui.charts import marks
from acrf_tui.charts.lines import Line, fit
from acrf_tui.charts.symbols import BRAILLE, SymbolSet
from acrf_tui.panels import numbers
from acrf_tui.panels.header import STATES
from acrf_tui.printable import printable, short_path

MOST_RUNS = 300
STATE_WIDTH = 13
LOSS_WIDTH = 8
AGE_WIDTH = 8
FOLDER_FROM = 96
"""Cells of width from which the folder has a column, where not all runs are in the same."""
CURVE_POINTS = 60
CURVE_WIDTHS = ((150, 30), (96, 16), (70, 10))
"""Cells of width from which the curve of the loss has a column, and its cells."""
SHORTEST_NAME = 12
NOT_FINITE = "×"


@dataclass(frozen=True, slots=True)
class RunSummary:
    """One run of the list. `created` in Unix seconds; `error` says why it failed or cannot be read."""

    folder: Path
    state: str
    step: int = 0
    total_steps: int = 0
    loss: float | None = None
    created: float = 0.0
    error: str = ""
    waiting: str = ""
    """What a run in the line for a device waits for."""
    curve: tuple[float, ...] = ()
    """The anchor-balanced loss over the steps, oldest first; NaN where a loss was not finite."""

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def active(self) -> bool:
        return self.state in ACTIVE_STATES

    @property
    def resumable(self) -> bool:
        return self.state in RESUMABLE_STATES

    @property
    def hint(self) -> str:
        """What the keys do with this run now."""
        if self.waiting:
            return f"waits for {self.waiting}"
        match self.state:
            case "finished":
                return "enter looks at it, r trains it further, x deletes it"
            case "unreadable":
                return "its files cannot be read, x deletes it"
            case _ if self.resumable:
                return f"r resumes it: {printable(self.error)}" if self.error else "r resumes it from its checkpoint"
            case _:
                return "enter watches and steers it"


class CurveCache:
    """The curves of runs, read again where their telemetry has changed."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[tuple[int, ...], tuple[float, ...]]] = {}

    def curve_of(self, folder: RunFolder) -> tuple[float, ...]:
        """A run's curve in CURVE_POINTS points at most. Reads files."""
        from acrf_engine.run.curves import sparkline, stamp_of

        stamp = stamp_of(folder)
        known = self._known.get(folder.path)
        if known is None or known[0] != stamp:
            known = self._known[folder.path] = stamp, tuple(sparkline(folder, CURVE_POINTS))
        return known[1]


def read_runs(runs_dir: Path, curves: CurveCache | None = None) -> list[RunSummary]:
    """The runs of `runs_dir` and those remembered elsewhere, newest first. Reads files: not for the UI thread."""
    return [summary_of(folder, curves) for folder in list_runs(runs_dir)[:MOST_RUNS]]


def summary_of(folder: RunFolder, curves: CurveCache | None = None) -> RunSummary:
    """A run's summary; a run that cannot be read is one too."""
    try:
        status = folder.read_status()
    except RunError as error:
        return RunSummary(folder.path, "unreadable", error=str(error))
    return RunSummary(
        folder.path, status.state, status.step, status.total_steps, status.loss, status.created, status.error or "",
        status.waiting, curves.curve_of(folder) if curves is not None else (),
    )  # fmt: skip


def matches(run: RunSummary, words: str) -> bool:
    """Whether each of the words is in the run's name or state."""
    text = f"{run.name} {'waiting' if run.waiting else run.state}".casefold()
    return all(word in text for word in words.casefold().split())


@dataclass(frozen=True, slots=True)
class Columns:
    """Widths of the columns in cells; a folder or a curve of 0 is not shown."""

    name: int
    step: int
    folder: int
    curve: int = 0


def columns_for(runs: Sequence[RunSummary], width: int) -> Columns:
    """Columns that fit `width` cells: what is needed, the rest to the folder, and the name shortened last."""
    step = max([9, *(cell_len(_step(run)) for run in runs)])
    room = width - (STATE_WIDTH + step + LOSS_WIDTH + AGE_WIDTH + 4 * 2)
    longest = max([12, *(cell_len(run.name) for run in runs)])
    curve = next((cells for least, cells in CURVE_WIDTHS if width >= least), 0)
    if room - curve - 2 < SHORTEST_NAME:
        curve = 0
    room -= curve + 2 if curve else 0
    if width < FOLDER_FROM:
        return Columns(max(8, room), step, 0, curve)
    if len({run.folder.parent for run in runs}) < 2:
        return Columns(min(longest, room), step, 0, curve)
    name = min(longest, max(16, room - 26))
    return Columns(name, step, max(0, room - name - 2), curve)


def head(columns: Columns) -> str:
    """The names of the columns."""
    curve = f"{'loss':{columns.curve}}  " if columns.curve else ""
    text = (
        f"{'state':{STATE_WIDTH}}  {'name':{columns.name}}  {'step':>{columns.step}}  {curve}"
        f"{'last' if columns.curve else 'loss':>{LOSS_WIDTH}}  {'started':>{AGE_WIDTH}}"
    )
    return f"{text}  folder" if columns.folder else text


def row(run: RunSummary, columns: Columns, now: float, symbols: SymbolSet = BRAILLE) -> Line:
    """One run in its columns."""
    state = "waiting" if run.waiting else run.state
    symbol, role = STATES.get(state, ("?", "bad"))
    name = fit(printable(run.name), columns.name)
    ends_badly = run.loss is None and bool(run.curve) and math.isnan(run.curve[-1])
    value = "NaN" if ends_badly else numbers.UNKNOWN if run.loss is None else numbers.loss(run.loss)
    started = numbers.age(max(0.0, now - run.created)) if run.created else numbers.UNKNOWN
    spans = [
        (f"{symbol} {state}".ljust(STATE_WIDTH) + "  ", role),
        (name + " " * (columns.name - cell_len(name)), "text"),
        (f"  {_step(run):>{columns.step}}", "text"),
    ]
    if columns.curve:
        spans += [("  ", "text"), *curve_spans(run.curve, columns.curve, symbols)]
    spans.append((f"  {value:>{LOSS_WIDTH}}  {started:>{AGE_WIDTH}}", "text"))
    if columns.folder:
        spans.append((f"  {_fit_left(short_path(run.folder.parent), columns.folder)}", "muted"))
    return tuple(spans)


def curve_spans(values: Sequence[float], width: int, symbols: SymbolSet = BRAILLE) -> Line:
    """Values in `width` cells, lowest to highest of them over the height; a cell with one that is not finite is marked.

    Fewer values than fit stand at the left.
    """
    per_cell = symbols.dots_x
    count = min(len(values), width * per_cell)
    points = [_part(values, index, count) for index in range(count)]
    finite = [value for value in points if math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    spans: list[tuple[str, str]] = []
    for start in range(0, count, per_cell):
        cell = points[start : start + per_cell]
        if all(map(math.isfinite, cell)):
            pair = cell if len(cell) == per_cell else [*cell, math.nan]
            spans.append((marks.sparkline(pair, 1, low, high, symbols), "spark"))
        else:
            spans.append((NOT_FINITE if symbols.dots_x == 2 else "x", "bad"))
    return (*spans, (" " * (width - len(spans)), "text")) if len(spans) < width else tuple(spans)


def _part(values: Sequence[float], index: int, count: int) -> float:
    """The mean of the `index`th of `count` equal parts; NaN where a value of it is."""
    part = values[index * len(values) // count : (index + 1) * len(values) // count]
    return math.fsum(part) / len(part) if all(map(math.isfinite, part)) else math.nan


def _step(run: RunSummary) -> str:
    return f"{run.step:,} / {run.total_steps:,}" if run.total_steps else f"{run.step:,}"


def _fit_left(text: str, width: int) -> str:
    """The end of a path: that is where paths differ."""
    if cell_len(text) <= width:
        return text
    while text and cell_len(text) > width - 1:
        text = text[1:]
    return f"…{text}"

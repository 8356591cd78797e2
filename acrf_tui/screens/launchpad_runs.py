"""Runs as the launchpad lists them: one summary each, in aligned columns. Nothing here draws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.cells import cell_len

from acrf_engine.run.folder import RunError, RunFolder, list_runs
from acrf_engine.run.states import ACTIVE_STATES, RESUMABLE_STATES
from acrf_tui.charts.lines import Line, fit
from acrf_tui.panels import numbers
from acrf_tui.panels.header import STATES
from acrf_tui.screens.launchpad_configs import printable, short_path

MOST_RUNS = 300
STATE_WIDTH = 13
LOSS_WIDTH = 8
AGE_WIDTH = 8
FOLDER_FROM = 96
"""Cells of width from which the folder has a column."""


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
                return "enter looks at it, r trains it further"
            case "unreadable":
                return "its files cannot be read"
            case _ if self.resumable:
                return f"r resumes it: {printable(self.error)}" if self.error else "r resumes it from its checkpoint"
            case _:
                return "enter watches and steers it"


def read_runs(runs_dir: Path) -> list[RunSummary]:
    """The runs of `runs_dir` and those remembered elsewhere, newest first. Reads files: not for the UI thread."""
    return [summary_of(folder) for folder in list_runs(runs_dir)[:MOST_RUNS]]


def summary_of(folder: RunFolder) -> RunSummary:
    """A run's summary; a run that cannot be read is one too."""
    try:
        status = folder.read_status()
    except RunError as error:
        return RunSummary(folder.path, "unreadable", error=str(error))
    return RunSummary(
        folder.path, status.state, status.step, status.total_steps, status.loss, status.created, status.error or "",
        status.waiting,
    )  # fmt: skip


def age(seconds: float) -> str:
    """How long ago, coarse enough not to change at every look."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return "now"


@dataclass(frozen=True, slots=True)
class Columns:
    """Widths of the columns in cells; a folder of 0 is not shown."""

    name: int
    step: int
    folder: int


def columns_for(runs: Sequence[RunSummary], width: int) -> Columns:
    """Columns that fit `width` cells: what is needed, the rest to the folder, and the name shortened last."""
    step = max([9, *(cell_len(_step(run)) for run in runs)])
    fixed = STATE_WIDTH + step + LOSS_WIDTH + AGE_WIDTH + 4 * 2
    longest = max([12, *(cell_len(run.name) for run in runs)])
    room = width - fixed
    if width < FOLDER_FROM:
        return Columns(max(8, room), step, 0)
    name = min(longest, max(16, room - 26))
    return Columns(name, step, max(0, room - name - 2))


def head(columns: Columns) -> str:
    """The names of the columns."""
    text = (
        f"{'state':{STATE_WIDTH}}  {'name':{columns.name}}  {'step':>{columns.step}}  "
        f"{'loss':>{LOSS_WIDTH}}  {'started':>{AGE_WIDTH}}"
    )
    return f"{text}  folder" if columns.folder else text


def row(run: RunSummary, columns: Columns, now: float) -> Line:
    """One run in its columns."""
    state = "waiting" if run.waiting else run.state
    symbol, role = STATES.get(state, ("?", "bad"))
    name = fit(printable(run.name), columns.name)
    value = numbers.UNKNOWN if run.loss is None or not math.isfinite(run.loss) else numbers.loss(run.loss)
    started = age(max(0.0, now - run.created)) if run.created else numbers.UNKNOWN
    figures = f"  {_step(run):>{columns.step}}  {value:>{LOSS_WIDTH}}  {started:>{AGE_WIDTH}}"
    spans = [
        (f"{symbol} {state}".ljust(STATE_WIDTH) + "  ", role),
        (name + " " * (columns.name - cell_len(name)), "text"),
        (figures, "text"),
    ]
    if columns.folder:
        spans.append((f"  {_fit_left(short_path(run.folder.parent), columns.folder)}", "muted"))
    return tuple(spans)


def _step(run: RunSummary) -> str:
    return f"{run.step:,} / {run.total_steps:,}" if run.total_steps else f"{run.step:,}"


def _fit_left(text: str, width: int) -> str:
    """The end of a path: that is where paths differ."""
    if cell_len(text) <= width:
        return text
    while text and cell_len(text) > width - 1:
        text = text[1:]
    return f"…{text}"

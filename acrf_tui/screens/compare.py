"""Several runs over one another: one chart, a metric at a time, and what is different between them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.message import Message
from textual.widgets import Static
from textual.worker import Worker, WorkerState

from acrf_engine.protocol import ACTIVE_STATES
from acrf_engine.run.curves import Curve
from acrf_engine.run.folder import RunFolder
from acrf_tui.charts import scale
from acrf_tui.charts.lines import Line, LineView, line, spread, width_of
from acrf_tui.panels.keys import KeysLine
from acrf_tui.screens.calm import CalmScreen
from acrf_tui.screens.compare_chart import LETTERS, RunsChart, Scene, Trace
from acrf_tui.screens.compare_runs import Compared, Reader
from acrf_tui.screens.compare_table import METRICS, difference_lines, run_lines, value_at

LOOK_SECONDS = 2.0
BOTH_FROM_ROWS = 30
"""Rows from which chart and table stand below one another."""
MOST_ZOOM = 8
TIME_UNITS = ((7200.0, 3600.0, "h trained"), (180.0, 60.0, "min trained"), (0.0, 1.0, "s trained"))
"""Longest training time from which a unit is used, its seconds, and its name."""


class CompareScreen(CalmScreen[None]):
    """Reads runs from their folders, also while they go on; sends them nothing."""

    CSS_PATH = "../styles/compare.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-w-tiny"), (60, "-w-normal")]  # noqa: RUF012 (an instance variable in Screen)
    VERTICAL_BREAKPOINTS = [(0, "-h-tiny"), (20, "-h-short"), (BOTH_FROM_ROWS, "-h-both")]  # noqa: RUF012 (as above)
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("m", "metric(1)", "Metric", id="compare.metric", tooltip="The next metric"),
        Binding("M", "metric(-1)", "Back", id="compare.metric-back", tooltip="The metric before", show=False),
        Binding("a", "align", "Step/time", id="compare.align", tooltip="Align by step, or by training time"),
        Binding("d", "table", "Configs", id="compare.table", tooltip="Where the configs differ: show it, or hide it"),
        Binding("s", "smooth", "Smooth", id="compare.smooth", tooltip="A trailing mean of what jumps, or every step"),
        Binding("g", "log_scale", "Log", id="compare.log", tooltip="Logarithmic or linear scale"),
        Binding("left", "cross(-1)", "Crosshair", id="compare.left", tooltip="Crosshair to the left: values below"),
        Binding("right", "cross(1)", "", id="compare.right", tooltip="Crosshair to the right", show=False),
        Binding("pageup", "cross(-10)", show=False),
        Binding("pagedown", "cross(10)", show=False),
        Binding("plus,equals_sign", "zoom(1)", "In", id="compare.in", tooltip="The last part only", show=False),
        Binding("minus", "zoom(-1)", "Out", id="compare.out", tooltip="A longer part", show=False),
        *(
            Binding(str(n), f"toggle_run({n - 1})", f"Run {letter}", id=f"compare.run-{n}", show=False,
                    tooltip=f"Hide run {letter}, or show it again")
            for n, letter in enumerate(LETTERS, start=1)
        ),
        Binding("down", "scroll(1)", show=False),
        Binding("up", "scroll(-1)", show=False),
        Binding("question_mark", "help", "Help", id="app.help", tooltip="Show the keys that work now"),
        Binding("q", "back", "Close", id="compare.close", tooltip="Back to the launchpad"),
        Binding("escape", "back", show=False),
    ]  # fmt: skip

    @dataclass
    class Looked(Message):
        """The runs as they are now."""

        runs: list[Compared]

    def __init__(self, folders: Sequence[RunFolder]) -> None:
        super().__init__()
        self._readers = [Reader(folder) for folder in folders[: len(LETTERS)]]
        self.runs = [reader.known for reader in self._readers]
        self.metric = METRICS[0]
        self.by_time = False
        self.smooth = True
        self.log_scale = False
        self.zoom = 0
        self.cross: float | None = None
        self.hidden: set[int] = set()
        self.turned = False
        self._looking = False

    # ------------------------------------------------------------------ building

    def compose(self) -> ComposeResult:
        yield LineView(id="compare-head")
        yield RunsChart(id="compare-chart")
        yield LineView(id="compare-runs")
        with VerticalScroll(id="compare-configs", can_focus=False):
            yield LineView(id="compare-differences")
        yield Static("This terminal is too small: 60x20 is the least. Runs are not affected.", id="compare-too-small")
        yield KeysLine(id="compare-keys")

    def on_mount(self) -> None:
        self.app.theme_changed_signal.subscribe(self, lambda _: self.call_after_refresh(self._show))
        self.set_interval(LOOK_SECONDS, self._look)
        self.call_after_refresh(self._look)

    def on_resize(self, event: events.Resize) -> None:
        self.call_after_refresh(self._show)

    def on_screen_resume(self) -> None:
        """Back from a dialog: the runs have gone on."""
        self._look()

    # ------------------------------------------------------------------ reading, off the app's thread

    def _look(self) -> None:
        if not self._looking and self.app.screen is self:
            self._looking = True
            self.run_worker(self._read, thread=True, group="look", exit_on_error=False)

    def _read(self) -> None:
        self.post_message(self.Looked([reader.read() for reader in self._readers]))

    def on_compare_screen_looked(self, message: Looked) -> None:
        """Draw what is there now."""
        self._looking = False
        if any(new is not old for new, old in zip(message.runs, self.runs, strict=True)):
            self.runs = message.runs
            self._show()

    def on_worker_state_changed(self, message: Worker.StateChanged) -> None:
        """A look that broke says so; the screen stays, and looks again."""
        if message.state == WorkerState.ERROR:
            self._looking = False
            reason = str(message.worker.error) or "no reason was given"
            self.notify(reason, title="The runs cannot be read", severity="error", markup=False)

    # ------------------------------------------------------------------ showing

    def _show(self) -> None:
        if not self.is_mounted or not self.size.width:
            return
        both = self.size.height >= BOTH_FROM_ROWS
        self.query_one("#compare-chart").display = both or not self.turned
        self.query_one("#compare-configs").display = both != self.turned
        width = self.size.width - 2
        unit, seconds = self._unit()
        self._show_head(unit)
        self._show_chart(unit, seconds)
        lines = run_lines(self.runs, self.metric, width, tuple(self.hidden), self._under_cross(seconds))
        runs = self.query_one("#compare-runs", LineView)
        runs.styles.height = len(lines) + 1
        runs.show(lines)
        table = difference_lines(self.runs, width - 1)
        view = self.query_one("#compare-differences", LineView)
        view.styles.height = len(table)
        view.show(table)

    def _show_head(self, unit: str) -> None:
        spans: list[tuple[str, str]] = [(" Compare ", "bold accent")]
        for one in METRICS:
            chosen = one is self.metric
            spans.append((f" {one.short} ", "bold reverse accent" if chosen else "muted"))
        state = ["by training time" if self.by_time else "by step"] + (["log"] if self.log_scale else [])
        state += ["trailing mean"] if self._smoothed() else []
        strides = {run.curve.stride for run in self.runs if run.curve.stride > 1}
        state += [f"every {max(strides):,}th step"] if strides else []
        where = ""
        if self.cross is not None:
            where = f"│ at {self.cross:,.1f} {unit.split()[0]}  " if self.by_time else f"│ at step {self.cross:,.0f}  "
        room = self.size.width - width_of(tuple(spans)) - len(where) - 2
        while len(", ".join(state)) > room and state:
            state.pop()
        right: Line = line((where, "text"), (f"{', '.join(state)} ", "muted"))
        self.query_one("#compare-head", LineView).show([spread(tuple(spans), right, self.size.width)])

    def _show_chart(self, unit: str, seconds: float) -> None:
        traces = [
            Trace(index, self._xs(run.curve, seconds), getattr(run.curve, self.metric.key))
            for index, run in enumerate(self.runs)
            if index not in self.hidden
        ]
        begin, end = self._window(seconds)
        spiky = not self._smoothed() and self.metric.smooth
        scene = Scene(begin, end, self.log_scale, self._smoothed(), spiky, self.cross)
        nothing = "All runs are hidden: their numbers show them again."
        if len(self.hidden) < len(self.runs):
            nothing = "There are no steps yet: the curves begin with the first one."
        self.query_one(RunsChart).show(traces, scene, unit, nothing)

    def _unit(self) -> tuple[str, float]:
        """What is on the x axis, and how many seconds it is, where it is time."""
        if not self.by_time:
            return "step", 1.0
        longest = max((run.curve.elapsed[-1] for run in self.runs if len(run.curve)), default=0.0)
        return next((name, seconds) for least, seconds, name in TIME_UNITS if longest >= least)

    def _xs(self, curve: Curve, seconds: float) -> Sequence[float]:
        if not self.by_time:
            return curve.step
        return curve.elapsed if seconds == 1.0 else [value / seconds for value in curve.elapsed]

    def _window(self, seconds: float) -> tuple[float, float]:
        """The x range: up to the end of the longest run that is shown, or the last part of that.

        While one of them goes on there is room for it, so that what is drawn does not move with every look.
        """
        shown = self._shown()
        longest = max((self._xs(run.curve, seconds)[-1] for run in shown), default=1.0)
        live = any(run.state in ACTIVE_STATES for run in shown)
        if live:
            total = 0 if self.by_time else max(run.total_steps for run in shown)
            end = scale.doubling_domain(longest, total, smallest=1.0 if self.by_time else 64.0)
        else:
            step = scale.nice_step(longest, 40)
            end = max(step, math.ceil(longest / step - 1e-9) * step)
        return end * (1 - 2.0**-self.zoom), end

    def _shown(self) -> list[Compared]:
        """The runs that have a line."""
        return [run for index, run in enumerate(self.runs) if index not in self.hidden and len(run.curve)]

    def _smoothed(self) -> bool:
        return self.smooth and self.metric.smooth

    def _under_cross(self, seconds: float) -> list[str]:
        if self.cross is None:
            return []
        found = []
        for run in self.runs:
            value = value_at(self._xs(run.curve, seconds), getattr(run.curve, self.metric.key), self.cross)
            found.append("–" if value is None else self.metric.text(value))
        return found

    # ------------------------------------------------------------------ acting

    def action_metric(self, by: int) -> None:
        """Show another metric."""
        self.metric = METRICS[(METRICS.index(self.metric) + by) % len(METRICS)]
        self.query_one(RunsChart).bounds = scale.Bounds()
        self._show()

    def action_align(self) -> None:
        """Align by step, or by training time."""
        self.by_time = not self.by_time
        self.cross = None
        self._show()

    def action_table(self) -> None:
        """Where both fit, hide the config differences, or show them again; else they take the place of the chart."""
        self.turned = not self.turned
        self._show()

    def action_smooth(self) -> None:
        """Draw a trailing mean, or every step."""
        if not self.metric.smooth:
            self.notify(f"The {self.metric.name} is drawn as it is: it does not jump")
            return
        self.smooth = not self.smooth
        self._show()

    def action_log_scale(self) -> None:
        """Logarithmic or linear."""
        self.log_scale = not self.log_scale
        self._show()

    def action_zoom(self, by: int) -> None:
        """Show the last half of what is shown, or twice as much."""
        self.zoom = min(MOST_ZOOM, max(0, self.zoom + by))
        self._show()

    def action_cross(self, by: int) -> None:
        """Move the crosshair by a cell; the first time it comes to the end of the longest run."""
        seconds = self._unit()[1]
        begin, end = self._window(seconds)
        last = max((self._xs(run.curve, seconds)[-1] for run in self._shown()), default=end)
        cell = (end - begin) / max(1, self.query_one(RunsChart).plot.size.width)
        place = self.cross + by * cell if self.cross is not None else last
        self.cross = min(end, max(begin, place if self.by_time else float(round(place))))
        self._show()

    def action_toggle_run(self, index: int) -> None:
        """Hide a run, or show it again."""
        if index < len(self.runs):
            self.hidden ^= {index}
            self._show()

    def action_scroll(self, by: int) -> None:
        """Scroll the table."""
        self.query_one("#compare-configs", VerticalScroll).scroll_relative(y=by, animate=False)

    def action_help(self) -> None:
        """List the keys that work now."""
        from acrf_tui.screens.dialogs import HelpDialog
        from acrf_tui.screens.live_keys import live_keys

        self.app.push_screen(HelpDialog(live_keys(self)))

    def action_back(self) -> None:
        """Drop the crosshair; without one, close."""
        if self.cross is not None:
            self.cross = None
            self._show()
        else:
            self.dismiss(None)

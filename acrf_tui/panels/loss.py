"""Loss: the raw value of every step, faint, under the anchor-balanced loss, which the choice of sigma does not move."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from textual import events
from textual.app import ComposeResult

from acrf_tui.charts.line_chart import LineChart, Points, Series
from acrf_tui.charts.lines import Line, LineView, Span, line, spread
from acrf_tui.charts.symbols import MARKERS, SymbolSet, symbols_of
from acrf_tui.charts.view import ChartView
from acrf_tui.panels import numbers
from acrf_tui.panels.chart_panel import ChartPanel, where
from acrf_tui.panels.keys import Key
from acrf_tui.series import Marker
from acrf_tui.state import RunState

NAMES = {
    "loss_balanced": "balanced",
    "loss": "raw",
    "loss_char": "Char",
    "loss_cos": "Cos",
    "loss_fft": "FFT",
    "validation": "validation",
}
SHORT_NAMES = {**NAMES, "loss_balanced": "bal", "validation": "val"}
ROLES = {
    "loss_balanced": "series-balanced",
    "loss": "series-raw",
    "loss_char": "series-char",
    "loss_cos": "series-cos",
    "loss_fft": "series-fft",
    "validation": "series-validation",
}
MARKER_NAMES = {
    "set": "set",
    "checkpoint": "checkpoint",
    "preview": "preview",
    "warning": "warning",
    "attempt": "resumed",
}
COLUMNS = ("loss", "loss_balanced", "loss_char", "loss_cos", "loss_fft")


def validation_points(state: RunState) -> Points | None:
    """Steps and losses of the validation, None before the first."""
    found = state.validation
    return (found.steps, found.losses) if len(found.steps) else None


def marks_line(markers: Iterable[Marker], symbols: SymbolSet) -> Line:
    """What the signs over the step axis and at the top edge mean; of markers only those that there are."""
    present = {marker.kind for marker in markers}
    spans: list[Span] = []
    for kind, char in symbols.markers:
        if kind in present:
            spans += [(f"{char} ", f"marker-{kind}"), (f"{MARKER_NAMES[kind]}  ", "muted")]
    if len(present) > 1:
        spans += [(f"{symbols.several} ", "axis"), ("several  ", "muted")]
    return line(*spans, (f"{symbols.broken} ", "bad"), ("NaN, inf", "muted"))


@dataclass(frozen=True, slots=True)
class Entry:
    """A series in the legend. `bad`: its value is not finite."""

    key: str
    on: bool
    number: str
    bad: bool

    def text(self, names: Mapping[str, str]) -> str:
        """Its name, and its value while it is shown."""
        return f"{names[self.key]} {self.number}" if self.on else names[self.key]


class LossPanel(ChartPanel):
    """The chart with a legend of current values; each series can be switched, the scale can be logarithmic."""

    TITLE = "Loss"
    NUMBER = 2
    SUBTITLE = "linear"
    AT_START: ClassVar[set[str]] = {"loss", "loss_balanced", "validation"}
    HELP = (
        "balanced: the mean over the anchors of each anchor's own running mean (about its last 10 draws). "
        "Raw loss jumps with the sigma a step happened to draw; this removes that variance: what is left is the "
        "learning.\n\n"
        "Under the loss: " + ", ".join(f"{char} {MARKER_NAMES[kind]}" for kind, char in MARKERS) + ", + several; "
        "▾ at the top: a value was NaN or infinite.\n\n"
        "Mouse: the pointer reads a step, a click holds it; the wheel zooms, with shift it pans, and so does a drag."
    )
    DEFAULT_CSS = """
    LossPanel #loss-marks { display: none; height: 1; }
    LossPanel.-maximized #loss-marks { display: block; }
    """

    def __init__(self, view: ChartView | None = None, *, id: str | None = None) -> None:
        super().__init__(view, id=id)
        self._chart = LineChart(
            [
                Series("loss", ROLES["loss"], spiky=True),
                Series("loss_fft", ROLES["loss_fft"], smooth=True),
                Series("loss_cos", ROLES["loss_cos"], smooth=True),
                Series("loss_char", ROLES["loss_char"], smooth=True),
                Series("loss_balanced", ROLES["loss_balanced"], thick=True),
                Series("validation", ROLES["validation"], points=True),
            ],
            view=self.view,
        )
        self.chart.visible_keys = set(self.AT_START)
        self._latest: tuple[int, int, bool, frozenset[str]] | None = None
        self._places: list[tuple[int, str]] = []
        self.view.listen(self._view_changed)

    @property
    def chart(self) -> LineChart:
        """The one chart."""
        return self._chart

    def compose(self) -> ComposeResult:
        yield LineView(id="loss-legend")
        yield self.chart
        yield LineView(id="loss-marks")

    def keys_first(self) -> list[Key]:
        """In the maximised view the scale too."""
        return [*super().keys_first(), *(["loss.log"] if self.has_class("-maximized") else [])]

    def toggle(self, key: str) -> None:
        """Show or hide a series."""
        self.chart.visible_keys ^= {key}
        self.chart.paint()

    def toggle_log(self) -> None:
        """Switch between a linear and a logarithmic scale."""
        self.chart.log_scale = not self.chart.log_scale
        self._rescaled()

    def zoom(self, levels: int) -> None:
        """Show fewer or more steps, around the crosshair or the newest one."""
        self.view.zoom_by(levels)

    def _rescaled(self) -> None:
        self._say_where()
        self.chart.paint()

    def _say_where(self) -> None:
        scale = "log" if self.chart.log_scale else "linear"
        text = where(self.view, scale, self.follow_key(), self.size.width - 4)
        if self.border_subtitle != text:
            self.border_subtitle = text

    def _view_changed(self) -> None:
        if self.state is not None and self.is_attached:
            self._say_where()
            self._paint_legend(self.state)

    def paint(self, state: RunState, now: float) -> None:
        self.state = state
        series = state.series
        points = validation_points(state)
        latest = (int(now), self.size.width, len(series) > 0, frozenset(self.chart.visible_keys))
        self.behind = latest == self._latest
        self.chart.message = self.why_empty(state)
        data: dict[str, array[float]] = {key: getattr(series, key) for key in COLUMNS}
        own = {"validation": points} if points else None
        self.chart.markers = state.markers
        self.chart.set_data(series.step, data, state.total_steps, state.series_version, own)
        if not self.behind:  # once a second: values that flicker cannot be read
            self._latest = latest
            self._paint_legend(state)
            if self.has_class("-maximized"):
                self.query_one("#loss-marks", LineView).show([marks_line(state.markers, symbols_of(self))])
        self.chart.paint()

    def _paint_legend(self, state: RunState) -> None:
        legend = self.query_one("#loss-legend", LineView)
        if not len(state.series):
            legend.show([])
            return
        index = self.chart.cross_index()
        spans = self._legend(state, index)
        if index is not None:
            spans = spread(line(*spans, *self.what_stands_there()), (), max(1, legend.size.width))
        legend.show([spans])

    def _value(self, state: RunState, key: str, index: int | None) -> float:
        """A series at a sample, None: its newest. The validation has its last value before the sample."""
        if key != "validation":
            return float(getattr(state.series, key)[-1 if index is None else index])
        steps, losses = validation_points(state) or ((), ())
        last = len(steps) if index is None else bisect_right(steps, state.series.step[index])
        return losses[last - 1] if last else math.nan

    def _legend(self, state: RunState, index: int | None) -> Line:
        """Every series with its value. Where that does not fit: no hidden ones, short names, coloured names."""
        room = self.query_one("#loss-legend", LineView).size.width
        entries = self._entries(state, index)
        on = [entry for entry in entries if entry.on]
        step = "" if index is None else f"{state.series.step[index]:,.0f}"
        head = f"step {step}  " if step else ""
        tries = [
            (head, entries if index is None else on, NAMES, 2, True),
            (head, on, NAMES, 2, True),
            (head, on, SHORT_NAMES, 2, True),
            (head, on, SHORT_NAMES, 1, True),
            (f"{step} " if step else "", on, SHORT_NAMES, 1, False),
        ]
        for head, chosen, names, gap, marked in tries:
            marks = 2 if marked else 0
            if len(head) + sum(marks + len(entry.text(names)) + gap for entry in chosen) - gap <= room:
                break
        shown, hidden = symbols_of(self).swatch
        spans: list[Span] = [(head, "bold text")]
        edge = len(head)
        self._places = []
        for entry in chosen:
            role = ROLES[entry.key] if entry.on else "muted"
            name, _, number = (entry.text(names) + " " * gap).partition(" ")
            text = f"{name} {number}"
            plain = "bad" if entry.bad else "text" if entry.on else "muted"
            if marked:
                spans += [(f"{shown if entry.on else hidden} ", role), (text, plain)]
            else:
                spans += [(f"{name} ", role), (number, plain)]
            edge += marks + len(text)
            self._places.append((edge, entry.key))
        return line(*(span for span in spans if span[0]))

    def _entries(self, state: RunState, index: int | None) -> list[Entry]:
        found = []
        for key in NAMES:
            if key == "validation" and validation_points(state) is None:
                continue
            on = key in self.chart.visible_keys
            value = self._value(state, key, index)
            none_yet = key == "validation" and index is not None and math.isnan(value)
            number = numbers.UNKNOWN if none_yet else numbers.loss(value)
            found.append(Entry(key, on, number, on and not none_yet and not math.isfinite(value)))
        return found

    def on_click(self, event: events.Click) -> None:
        """A click on the legend switches that series."""
        if event.widget is not None and event.widget.id == "loss-legend":
            for edge, key in self._places:
                if event.x < edge:
                    self.toggle(key)
                    return

"""Loss: the raw value of every step, faint, under the anchor-balanced loss, which the choice of sigma does not move."""

from __future__ import annotations

import math
from array import array
from typing import ClassVar

from textual import events
from textual.app import ComposeResult

from acrf_tui.charts.line_chart import LineChart, Series
from acrf_tui.charts.lines import Line, LineView, line
from acrf_tui.panels import numbers
from acrf_tui.panels.panel import Panel
from acrf_tui.state import RunState

NAMES = {
    "loss_balanced": "balanced",
    "loss": "raw",
    "loss_char": "Char",
    "loss_cos": "Cos",
    "loss_fft": "FFT",
}
ROLES = {
    "loss_balanced": "series-balanced",
    "loss": "series-raw",
    "loss_char": "series-char",
    "loss_cos": "series-cos",
    "loss_fft": "series-fft",
}


ZOOM_LEVELS = 8


class LossPanel(Panel):
    """The chart with a legend of current values; each series can be switched, the scale can be logarithmic."""

    TITLE = "Loss"
    NUMBER = 2
    SUBTITLE = "linear"
    AT_START: ClassVar[set[str]] = {"loss", "loss_balanced"}

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.chart = LineChart(
            [
                Series("loss", ROLES["loss"], spiky=True),
                Series("loss_fft", ROLES["loss_fft"], smooth=True),
                Series("loss_cos", ROLES["loss_cos"], smooth=True),
                Series("loss_char", ROLES["loss_char"], smooth=True),
                Series("loss_balanced", ROLES["loss_balanced"], thick=True),
            ]
        )
        self.chart.visible_keys = set(self.AT_START)
        self._latest: tuple[int, int, bool, frozenset[str]] | None = None
        self._places: list[tuple[int, str]] = []

    def compose(self) -> ComposeResult:
        yield LineView(id="loss-legend")
        yield self.chart

    def toggle(self, key: str) -> None:
        """Show or hide a series."""
        self.chart.visible_keys ^= {key}
        self.chart.paint()

    def toggle_log(self) -> None:
        """Switch between a linear and a logarithmic scale."""
        self.chart.log_scale = not self.chart.log_scale
        self._rescaled()

    def zoom(self, levels: int) -> None:
        """Show fewer or more of the last steps."""
        self.chart.zoom = min(ZOOM_LEVELS, max(0, self.chart.zoom + levels))
        self._rescaled()

    def _rescaled(self) -> None:
        scale = "log" if self.chart.log_scale else "linear"
        self.border_subtitle = scale if not self.chart.zoom else f"{scale}, zoom {2**self.chart.zoom} ×"
        self.chart.paint()

    def paint(self, state: RunState, now: float) -> None:
        series = state.series
        legend = self.query_one("#loss-legend", LineView)
        latest = (int(now), self.size.width, len(series) > 0, frozenset(self.chart.visible_keys))
        self.behind = latest == self._latest
        if not self.behind:  # once a second: values that flicker cannot be read
            self._latest = latest
            legend.show([self._legend(state)] if len(series) else [])
        self.chart.message = self.why_empty(state)
        keys = ("loss", "loss_balanced", "loss_char", "loss_cos", "loss_fft")
        data: dict[str, array[float]] = {key: getattr(series, key) for key in keys}
        self.chart.set_data(series.step, data, state.total_steps, state.series_version)
        self.chart.paint()

    def _legend(self, state: RunState) -> Line:
        spans: list[tuple[str, str]] = []
        self._places = []
        used = 0
        compact = self.size.width < 60
        for key, name in NAMES.items():
            on = key in self.chart.visible_keys
            if compact and not on:
                continue
            value = getattr(state.series, key)[-1]
            bad = not math.isfinite(value)
            text = f"{name} {numbers.loss(value)}" if on else name
            mark = "━" if on else "╌"
            spans += [
                (f"{mark} ", ROLES[key] if on else "muted"),
                (f"{text}  ", "bad" if bad and on else "text" if on else "muted"),
            ]
            used += len(text) + 4
            self._places.append((used, key))
        return line(*spans)

    def on_click(self, event: events.Click) -> None:
        """A click on the legend switches that series."""
        if event.widget is not None and event.widget.id == "loss-legend":
            for edge, key in self._places:
                if event.x < edge:
                    self.toggle(key)
                    return

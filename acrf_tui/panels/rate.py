"""Learning rate and gradient norm, the two curves that tell a training that goes wrong from one that rests."""

from __future__ import annotations

import math

from textual.app import ComposeResult
from textual.containers import Horizontal

from acrf_tui.charts.line_chart import LineChart, Series
from acrf_tui.charts.lines import LineView, line, spread
from acrf_tui.charts.symbols import symbols_of
from acrf_tui.charts.view import ChartView
from acrf_tui.panels import numbers
from acrf_tui.panels.chart_panel import ChartPanel
from acrf_tui.state import RunState


def clip_level(state: RunState) -> float | None:
    """The gradient norm at which gradients are clipped, None where they are not."""
    clip = state.clip()
    return clip if math.isfinite(clip) and clip > 0 else None


class RatePanel(ChartPanel):
    """Two small charts under their current values; the dotted line is where gradients are clipped.

    Their axes have room only in the maximised view.
    """

    TITLE = "LR and gradient norm"
    NUMBER = 6
    EVERY = 4

    def __init__(self, view: ChartView | None = None, *, id: str | None = None) -> None:
        super().__init__(view, id=id)
        self.rate_chart = LineChart([Series("lr", "series-rate")], axes=False, view=self.view)
        self.rate_chart.floor = 0.0
        self.norm_chart = LineChart([Series("grad_norm", "series-gradient", spiky=True)], axes=False, view=self.view)
        self.view.listen(self._view_changed)

    @property
    def chart(self) -> LineChart:
        """The upper one; both are as wide."""
        return self.rate_chart

    def _view_changed(self) -> None:
        if self.state is not None and self.is_attached and len(self.state.series):
            self._paint_heads(self.state)

    def compose(self) -> ComposeResult:
        with Horizontal(classes="chart-head"):
            yield LineView(id="rate-head")
            yield LineView(id="rate-value", classes="chart-value")
        yield self.rate_chart
        with Horizontal(classes="chart-head"):
            yield LineView(id="norm-head")
            yield LineView(id="norm-value", classes="chart-value")
        yield self.norm_chart

    def paint(self, state: RunState, now: float) -> None:
        self.state = state
        series = state.series
        if not len(series):
            for name in ("rate-head", "rate-value", "norm-head", "norm-value"):
                self.query_one(f"#{name}", LineView).show([])
            self.rate_chart.message = self.why_empty(state)
            self.rate_chart.paint()
            return
        clip = clip_level(state)
        self.rate_chart.set_data(series.step, {"lr": series.lr}, state.total_steps, state.series_version)
        self.norm_chart.set_data(series.step, {"grad_norm": series.grad_norm}, state.total_steps, state.series_version)
        self.norm_chart.levels = [] if clip is None else [(clip, "series-limit")]
        for chart in (self.rate_chart, self.norm_chart):
            chart.show_axes(self.has_class("-maximized"))
            chart.markers = state.markers
            chart.paint()
        self._paint_heads(state)  # after the charts: it says where the clip level is

    def _paint_heads(self, state: RunState) -> None:
        clip, symbols = clip_level(state), symbols_of(self)
        index = self.chart.cross_index()
        sample = -1 if index is None else index
        rate_head, norm_head = self.query_one("#rate-head", LineView), self.query_one("#norm-head", LineView)
        width, swatch = rate_head.size.width, symbols.swatch[0]
        scheduler = state.plan.scheduler if state.plan else ""
        about = scheduler if index is None else f"step {state.series.step[index]:,.0f}"
        detail = line((about if len(about) + 17 <= width else "", "muted" if index is None else "bold text"))
        rate_head.show([spread(line((f"{swatch} ", "series-rate"), ("learning rate", "text")), detail, width)])
        beyond = clip is not None and clip > self.norm_chart.bounds.high
        limit = "not clipped" if clip is None else f"clip {clip:g} above" if beyond else f"{symbols.dots} clip {clip:g}"
        norm_head.show(
            [spread(line((f"{swatch} ", "series-gradient"), ("gradient norm", "text")), line((limit, "muted")), width)]
        )
        norm = state.series.grad_norm[sample]
        over = clip is not None and norm > clip
        role = "bad" if not math.isfinite(norm) else "warn" if over else "text"
        rate = state.series.lr[sample]
        self.query_one("#rate-value", LineView).show([line((f"{numbers.rate(rate):>11}", "text"))])
        self.query_one("#norm-value", LineView).show([line((f"{numbers.loss(norm):>11}", role))])

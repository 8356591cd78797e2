"""Learning rate and gradient norm, the two curves that tell a training that goes wrong from one that rests."""

from __future__ import annotations

import math

from textual.app import ComposeResult
from textual.containers import Horizontal

from acrf_tui.charts.line_chart import LineChart, Series
from acrf_tui.charts.lines import LineView, line, spread
from acrf_tui.panels import numbers
from acrf_tui.panels.panel import Panel
from acrf_tui.state import RunState


class RatePanel(Panel):
    """Two small charts under their current values; the dotted line is where gradients are clipped."""

    TITLE = "LR and gradient norm"
    NUMBER = 6
    EVERY = 4

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.rate_chart = LineChart([Series("lr", "series-rate")], axes=False)
        self.norm_chart = LineChart([Series("grad_norm", "series-gradient", spiky=True)], axes=False)

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
        series = state.series
        if not len(series):
            for name in ("rate-head", "rate-value", "norm-head", "norm-value"):
                self.query_one(f"#{name}", LineView).show([])
            self.rate_chart.message = self.why_empty(state)
            self.rate_chart.paint()
            return
        clip = state.clip()
        clipped = math.isfinite(clip) and clip > 0
        self._paint_heads(state, clip if clipped else None)
        self.rate_chart.set_data(series.step, {"lr": series.lr}, state.total_steps, state.series_version)
        self.norm_chart.set_data(series.step, {"grad_norm": series.grad_norm}, state.total_steps, state.series_version)
        self.norm_chart.levels = [(clip, "series-limit")] if clipped else []
        self.rate_chart.paint()
        self.norm_chart.paint()

    def _paint_heads(self, state: RunState, clip: float | None) -> None:
        rate_head, norm_head = self.query_one("#rate-head", LineView), self.query_one("#norm-head", LineView)
        width = rate_head.size.width
        scheduler = state.plan.scheduler if state.plan else ""
        detail = line((scheduler if len(scheduler) + 17 <= width else "", "muted"))
        rate_head.show([spread(line(("━ ", "series-rate"), ("learning rate", "text")), detail, width)])
        limit = f"┈ clip {clip:g}" if clip is not None else "not clipped"
        norm_head.show(
            [spread(line(("━ ", "series-gradient"), ("gradient norm", "text")), line((limit, "muted")), width)]
        )
        norm = state.series.grad_norm[-1]
        over = clip is not None and norm > clip
        role = "bad" if not math.isfinite(norm) else "warn" if over else "text"
        self.query_one("#rate-value", LineView).show([line((f"{numbers.rate(state.series.lr[-1]):>11}", "text"))])
        self.query_one("#norm-value", LineView).show([line((f"{numbers.loss(norm):>11}", role))])

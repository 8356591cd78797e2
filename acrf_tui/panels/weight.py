"""w(sigma): how much a picture counts at each noise level, with the anchors and the last draws on the curve."""

from __future__ import annotations

import math

from textual.app import ComposeResult
from textual.containers import Grid

from acrf_tui.charts import raster
from acrf_tui.charts.lines import LineView, line, wrap
from acrf_tui.charts.plot import Plot
from acrf_tui.charts.scale import Scale
from acrf_tui.charts.symbols import BRAILLE
from acrf_tui.panels.panel import Panel
from acrf_tui.state import RunState

W_MIN, W_MAX = 0.1, 1.0
SIGMA_EDGE = 1e-6
LAST_SIGMAS = 8
CURVE, ANCHOR, DRAWN = 0, 1, 2
CURVE_ROLES = ("series-weight", "marker-anchor", "bold marker-sigma")


def weight(sigma: float, gamma: float, formula: str) -> float:
    """w(sigma) of Min-SNR (section 3): `min_snr` is min(SNR, gamma) / SNR, `min_snr_plus_one` divides by SNR + 1."""
    sigma = min(1 - SIGMA_EDGE, max(SIGMA_EDGE, sigma))
    snr = ((1 - sigma) / sigma) ** 2
    clipped = min(snr, gamma)
    value = clipped / (snr + 1) if formula == "min_snr_plus_one" else clipped / snr
    return min(W_MAX, max(W_MIN, value))


def curve(gamma: float, formula: str, width: int, height: int) -> list[raster.Row]:
    """w over sigma from 0 to 1 in width x height cells, w from 0 to 1."""
    columns = raster.Columns(width * BRAILLE.dots_x, 0.0, 1.0)
    for index in range(columns.count):
        sigma = (index + 0.5) / columns.count
        columns.append(sigma, weight(sigma, gamma, formula))
    rows = height * BRAILLE.dots_y
    mapping = Scale(0.0, 1.0, rows)
    return raster.compose([raster.trace(columns, mapping.row, rows)], width, height, BRAILLE)


def place(sigma: float, value: float, width: int, height: int) -> tuple[int, int]:
    """The cell of a point of the curve."""
    row = Scale(0.0, 1.0, height * BRAILLE.dots_y).row(value) // BRAILLE.dots_y
    return min(width - 1, max(0, int(sigma * width))), row


class WeightPanel(Panel):
    """Rings are anchors; discs are the last pictures that were drawn."""

    TITLE = "w(σ)"
    NUMBER = 5
    EVERY = 4

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.plot = Plot(self._sized)
        self._curve: list[raster.Row] = []
        self._key: tuple[float, str, int, int] = (math.nan, "", 0, 0)
        self._state: RunState | None = None

    def compose(self) -> ComposeResult:
        with Grid(id="weight-grid"):
            yield LineView(id="weight-y")
            yield self.plot
            yield LineView()
            yield LineView(id="weight-x")

    def _sized(self) -> None:
        if self._state is not None:
            self.paint(self._state, 0.0)

    def paint(self, state: RunState, now: float) -> None:
        self._state = state
        width, height = self.plot.size
        if width < 4 or height < 2:
            return
        y_axis, x_axis = self.query_one("#weight-y", LineView), self.query_one("#weight-x", LineView)
        gamma = state.gamma()
        if state.plan is None or not math.isfinite(gamma):
            text = "it comes with the run's plan"
            rows = [raster.Row(" " * width, bytes([raster.EMPTY]) * width) for _ in range(height)]
            for y, part in enumerate(wrap(text, width - 2)[:height], start=max(0, height // 2 - 1)):
                rows[y] = raster.Row(part.center(width), bytes([raster.EMPTY]) * width)
            self.plot.show(rows, CURVE_ROLES)
            return
        key = (gamma, state.plan.weighting, width, height)
        if key != self._key:
            self._key, self._curve = key, curve(gamma, state.plan.weighting, width, height)
            plus = "+1" if state.plan.weighting == "min_snr_plus_one" else ""
            self.border_subtitle = f"Min-SNR{plus}, γ {gamma:g}"
        rows = list(self._curve)
        for sigma in state.plan.anchors:
            x, y = place(sigma, weight(sigma, gamma, state.plan.weighting), width, height)
            raster.put(rows, x, y, BRAILLE.ring, ANCHOR)
        for sigma, value in list(state.sigmas)[-LAST_SIGMAS:]:
            if math.isfinite(sigma) and math.isfinite(value):
                x, y = place(sigma, value, width, height)
                raster.put(rows, x, y, BRAILLE.disc, DRAWN)
        self.plot.show(rows, CURVE_ROLES)
        labels = {place(0.0, value, width, height)[1]: f"{value:.1f}" for value in (0.5, 0.0, 1.0)}
        tick, plain = BRAILLE.axis
        y_axis.show(
            [
                line((f"{labels.get(y, ''):>3} ", "axis"), (tick if y in labels else plain, "axis"))
                for y in range(height)
            ]
        )
        x_axis.show([line((sigma_axis(width), "axis"))])


def sigma_axis(width: int) -> str:
    """Labels under the curve: clean pictures at the left, noise at the right."""
    left, middle, right = "0 clean", "σ 0.5", "noise 1"
    if width < len(left) + len(middle) + len(right) + 4:
        left, right = "0", "1"
    gap = max(1, width // 2 - len(left) - len(middle) // 2)
    text = left + " " * gap + middle
    return text + right.rjust(width - len(text))

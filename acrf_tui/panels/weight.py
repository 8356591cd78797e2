"""w(sigma): how much a picture counts at each noise level, with the anchors and the last draws on the curve.

Maximised it also shows the signal-to-noise ratio that the weight comes from, and where the last draws fell.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from textual.app import ComposeResult
from textual.containers import Container, Vertical

from acrf_tui.charts import raster
from acrf_tui.charts.lines import LineView, line, wrap
from acrf_tui.charts.marks import bin_counts, histogram
from acrf_tui.charts.scale import Scale
from acrf_tui.charts.symbols import BRAILLE, SymbolSet, symbols_of
from acrf_tui.panels.panel import Panel
from acrf_tui.panels.sigma_plot import ANCHOR, DRAWN, LEVEL, SigmaPlot, curve_rows, place_of
from acrf_tui.state import RunState

W_MIN, W_MAX = 0.1, 1.0
SIGMA_EDGE = 1e-6
LAST_SIGMAS = 8
SNR_LOW, SNR_HIGH = 1e-4, 1e4
"""What the SNR axis shows: sigma from 0.01 to 0.99; what lies beyond stands at its edge."""
SNR_LABELS = {1e-2: "0.01", 1e2: "100", 1e-4: "1e-4", 1e4: "1e4", 1.0: "1"}
ROOM_FOR_DRAWS = 30
"""Rows of a maximised panel from which on the draws have a histogram."""


def snr(sigma: float) -> float:
    """Signal-to-noise ratio of section 3.1: ((1 - sigma) / sigma)^2, sigma kept in [1e-6, 1 - 1e-6]."""
    sigma = min(1 - SIGMA_EDGE, max(SIGMA_EDGE, sigma))
    return ((1 - sigma) / sigma) ** 2


def weight(sigma: float, gamma: float, formula: str) -> float:
    """w(sigma) of Min-SNR (section 3): `min_snr` is min(SNR, gamma) / SNR, `min_snr_plus_one` divides by SNR + 1.

    Kept in 0.1..1; gamma 0 switches it off: 1.
    """
    if gamma == 0:
        return W_MAX
    ratio = snr(sigma)
    value = min(ratio, gamma) / (ratio + 1 if formula == "min_snr_plus_one" else ratio)
    return min(W_MAX, max(W_MIN, value))


def explain(gamma: float, formula: str) -> str:
    """One sentence on what the weight does."""
    if gamma == 0:
        return "γ 0 switches the weighting off: every picture counts 1"
    edge = f"σ {1 / (1 + math.sqrt(gamma)):.3f}"
    if formula == "min_snr_plus_one":
        return f"w = min(SNR, γ) / (SNR + 1), kept in 0.1–1: highest at {edge}, where SNR is γ {gamma:g}"
    return f"w = min(SNR, γ) / SNR, kept in 0.1–1: less than 1 below {edge}, where SNR exceeds γ {gamma:g}"


def unit_scale(height: int, symbols: SymbolSet) -> Scale:
    """w from 0 to 1 over a height in cells."""
    return Scale(0.0, 1.0, height * symbols.dots_y)


def curve(gamma: float, formula: str, width: int, height: int, symbols: SymbolSet = BRAILLE) -> list[raster.Row]:
    """w over sigma from 0 to 1 in width x height cells, w from 0 to 1."""
    return curve_rows(lambda sigma: weight(sigma, gamma, formula), unit_scale(height, symbols), width, height, symbols)


def place(sigma: float, value: float, width: int, height: int, symbols: SymbolSet = BRAILLE) -> tuple[int, int]:
    """The cell of a point of the curve."""
    return place_of(sigma, value, unit_scale(height, symbols), width, symbols)


class WeightPanel(Panel):
    """Rings are anchors; discs are the last pictures that were drawn."""

    TITLE = "w(σ)"
    NUMBER = 5
    EVERY = 4
    DEFAULT_CSS = """
    WeightPanel #weight-plots { layout: grid; grid-size: 1; height: 1fr; }
    WeightPanel #weight-plots Vertical { height: 1fr; width: 1fr; }
    WeightPanel .weight-more, WeightPanel #weight-says { display: none; height: 1; }
    WeightPanel.-maximized .weight-more { display: block; }
    WeightPanel.-maximized #weight-says { display: block; height: 2; }
    WeightPanel #weight-snr-box, WeightPanel #weight-draws { display: none; }
    WeightPanel.-maximized #weight-snr-box { display: block; }
    WeightPanel.-maximized.-tall #weight-draws { display: block; height: 6; }
    WeightPanel.-maximized.-wide #weight-plots { grid-size: 2; grid-gutter: 0 2; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.weights = SigmaPlot(self._sized, id="weight-w")
        self.ratios = SigmaPlot(self._sized, id="weight-snr")
        self._curves: dict[str, tuple[tuple[object, ...], list[raster.Row]]] = {}
        self._state: RunState | None = None

    def compose(self) -> ComposeResult:
        yield LineView(id="weight-says")
        with Container(id="weight-plots"):
            with Vertical(id="weight-w-box"):
                yield LineView(id="weight-w-title", classes="weight-more")
                yield self.weights
            with Vertical(id="weight-snr-box"):
                yield LineView(id="weight-snr-title", classes="weight-more")
                yield self.ratios
        yield LineView(id="weight-draws")

    def _sized(self) -> None:
        if self._state is not None:
            self.paint(self._state, 0.0)

    def paint(self, state: RunState, now: float) -> None:
        self._state = state
        self.set_class(self.size.width >= 110, "-wide")
        self.set_class(self.size.height >= ROOM_FOR_DRAWS, "-tall")
        gamma = state.gamma()
        if state.plan is None or not math.isfinite(gamma):
            self.weights.say("it comes with the run's plan")
            self.ratios.say("it comes with the run's plan")
            return
        formula = state.plan.weighting
        plus = "+1" if formula == "min_snr_plus_one" else ""
        subtitle = f"Min-SNR{plus}, γ {gamma:g}" if gamma else "no weighting, γ 0"
        if self.border_subtitle != subtitle:
            self.border_subtitle = subtitle
        self._paint_weights(state, gamma, formula)
        if self.has_class("-maximized"):
            self._paint_words(gamma, formula)
            self._paint_ratios(state, gamma)
            self._paint_draws(state)

    def _paint_weights(self, state: RunState, gamma: float, formula: str) -> None:
        width, height = self.weights.plot.size
        symbols = symbols_of(self)
        if width < 4 or height < 2:
            return
        key = (gamma, formula, width, height, symbols.name)
        rows = self._kept("w", key, lambda: curve(gamma, formula, width, height, symbols))
        assert state.plan is not None
        for sigma in state.plan.anchors:
            x, y = place(sigma, weight(sigma, gamma, formula), width, height, symbols)
            raster.put(rows, x, y, symbols.ring, ANCHOR)
        for sigma, value in list(state.sigmas)[-LAST_SIGMAS:]:
            if math.isfinite(sigma) and math.isfinite(value):
                x, y = place(sigma, value, width, height, symbols)
                raster.put(rows, x, y, symbols.disc, DRAWN)
        labels = {place(0.0, value, width, height, symbols)[1]: f"{value:.1f}" for value in (0.5, 0.0, 1.0)}
        self.weights.show(rows, labels)

    def _paint_ratios(self, state: RunState, gamma: float) -> None:
        width, height = self.ratios.plot.size
        symbols = symbols_of(self)
        if width < 4 or height < 2:
            return
        mapping = Scale(SNR_LOW, SNR_HIGH, height * symbols.dots_y, log=True)
        level = gamma if gamma > 0 else None
        key = (gamma, width, height, symbols.name)
        rows = self._kept("snr", key, lambda: curve_rows(snr, mapping, width, height, symbols, level))
        assert state.plan is not None
        for sigma in state.plan.anchors:
            x, y = place_of(sigma, snr(sigma), mapping, width, symbols)
            raster.put(rows, x, y, symbols.ring, ANCHOR)
        if level is not None:
            text = f" γ {gamma:g}"
            for x, char in enumerate(text, start=width - len(text)):
                raster.put(rows, x, mapping.row(gamma) // symbols.dots_y, char, LEVEL)
        labels = {mapping.row(value) // symbols.dots_y: text for value, text in SNR_LABELS.items()}
        self.ratios.show(rows, labels)

    def _kept(self, name: str, key: tuple[object, ...], make: Callable[[], list[raster.Row]]) -> list[raster.Row]:
        """A copy of a curve that is made anew only when its key changes."""
        kept = self._curves.get(name)
        if kept is None or kept[0] != key:
            kept = self._curves[name] = (key, make())
        return list(kept[1])

    def _paint_words(self, gamma: float, formula: str) -> None:
        symbols = symbols_of(self)
        says = self.query_one("#weight-says", LineView)
        says.show([line((text, "muted")) for text in wrap(explain(gamma, formula), max(1, says.size.width))[:2]])
        ring, disc = (f"  {symbols.ring} ", "marker-anchor"), (f"  {symbols.disc} ", "bold marker-sigma")
        self.query_one("#weight-w-title", LineView).show(
            [line(("w(σ), weight of a picture", "text"), ring, ("anchor", "muted"), disc, ("last draws", "muted"))]
        )
        self.query_one("#weight-snr-title", LineView).show(
            [line(("SNR(σ) = ((1 - σ) / σ)^2, log scale", "text"), ring, ("anchor", "muted"))]
        )

    def _paint_draws(self, state: RunState) -> None:
        view = self.query_one("#weight-draws", LineView)
        width, height = view.size
        if height < 3 or width < 8:
            return
        sigmas = [sigma for sigma, _ in state.sigmas]
        head = line((f"sigmas of the last {len(sigmas)} pictures", "text"), (", clean to noise", "muted"))
        bars = histogram(bin_counts(sigmas, width, 0.0, 1.0), height - 1, symbols_of(self))
        view.show([head, *(line((row, "series-weight")) for row in bars)])

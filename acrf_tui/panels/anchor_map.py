"""Loss over anchor and time as a heat map: where on the path the model learned, and when."""

from __future__ import annotations

import math
from collections.abc import Sequence

from textual.app import ComposeResult
from textual.containers import Grid, Vertical

from acrf_tui.charts import raster, scale
from acrf_tui.charts.axes import x_labels
from acrf_tui.charts.heat import COLOURED, NO_DATA, PLAIN, Levels, characters, fitting, is_coloured, row_of_cells
from acrf_tui.charts.lines import Line, LineView, line, spread
from acrf_tui.charts.palette import HEAT_LEVELS
from acrf_tui.charts.plot import Plot
from acrf_tui.charts.symbols import symbols_of
from acrf_tui.panels import numbers
from acrf_tui.series import AnchorMap
from acrf_tui.state import RunState

LABEL = 6


def heat_values(found: AnchorMap, anchor: int, end: float, step: int, width: int) -> list[float | None]:
    """Mean loss of an anchor in each of `width` cells from step 0 to `end`; NaN: no draw, None: not made yet."""
    values: list[float | None] = []
    for cell in range(width):
        first, last = cell / width * end, (cell + 1) / width * end
        values.append(found.mean(anchor, first, min(last, step + 1)) if first <= step else None)
    return values


def legend(levels: Levels, chars: tuple[str, ...], roles: Sequence[str], more: str, width: int) -> Line:
    """The steps of colour with the losses at both ends, then `more`."""
    narrow = width < 60
    steps = [(chars[level] * (1 if narrow else 2), roles[level]) for level in range(HEAT_LEVELS)]
    name, scaled = "loss" if narrow else "mean loss ", " log" if levels.log else ""
    left = line(
        (f"{name} {numbers.loss(levels.low)} ", "text"), *steps, (f" {numbers.loss(levels.high)}{scaled}", "text")
    )
    return spread(left, line((more, "muted")), width)


class AnchorHeat(Vertical):
    """One row (or more) of cells per anchor, the most noisy first, over the steps of the run."""

    DEFAULT_CSS = f"""
    AnchorHeat {{ width: 1fr; height: 1fr; }}
    AnchorHeat #heat-legend {{ height: 1; }}
    AnchorHeat Grid {{ grid-size: 2 2; grid-columns: {LABEL} 1fr; grid-rows: 1fr 1; height: 1fr; }}
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.plot = Plot(self._sized)
        self._state: RunState | None = None
        self._levels: Levels | None = None

    def compose(self) -> ComposeResult:
        yield LineView(id="heat-legend")
        with Grid():
            yield LineView(id="heat-sigmas")
            yield self.plot
            yield LineView()
            yield LineView(id="heat-steps")

    def _sized(self) -> None:
        if self._state is not None:
            self.paint(self._state)

    def paint(self, state: RunState) -> None:
        """Show the map of `state`, if there is room."""
        self._state = state
        width, height = self.plot.size
        if width < 4 or height < 1:
            return
        head, labels = self.query_one("#heat-legend", LineView), self.query_one("#heat-sigmas", LineView)
        axis = self.query_one("#heat-steps", LineView)
        found, sigmas = state.anchor_map, state.plan.anchors if state.plan else []
        count = max(len(sigmas), len(state.anchors.draws))
        if not found.draws() or not count:
            head.show([])
            labels.show([])
            axis.show([])
            self.plot.say("the map of loss over anchor and step begins with the first step")
            return
        end = scale.doubling_domain(state.step, state.total_steps)
        shown = min(count, height)
        values = [heat_values(found, anchor, end, state.step, width) for anchor in range(shown)]
        finite = [value for row in values for value in row if value is not None and math.isfinite(value)]
        levels = self._levels = fitting(min(finite, default=0.0), max(finite, default=1.0), self._levels)
        symbols = symbols_of(self)
        coloured = is_coloured(self)
        chars, roles = characters(symbols, coloured), COLOURED if coloured else PLAIN
        rows: list[raster.Row] = []
        names: list[Line] = []
        cells = [row_of_cells(row, levels, chars) for row in values]
        before = -1
        for y in range(height):  # all of the height, whatever the number of anchors
            anchor = y * shown // height
            rows.append(cells[anchor])
            text = f"{sigmas[anchor]:.3f}" if anchor < len(sigmas) else numbers.UNKNOWN
            names.append(line((f"{text:>{LABEL - 1}} ", "axis")) if anchor != before else ())
            before = anchor
        self.plot.show(rows, roles)
        labels.show(names)
        axis.show([line((x_labels(0.0, end, width, "step"), "axis"))])
        more = f"{count - shown} anchors more" if shown < count else f"{chars[NO_DATA]} none"
        head.show([legend(levels, chars, roles, more, head.size.width)])

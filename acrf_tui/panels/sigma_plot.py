"""A plot over sigma: a curve from 0 (clean picture) to 1 (noise), with marks on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from textual.app import ComposeResult
from textual.containers import Grid

from acrf_tui.charts import raster
from acrf_tui.charts.lines import LineView, line
from acrf_tui.charts.plot import Plot
from acrf_tui.charts.scale import Scale
from acrf_tui.charts.symbols import BRAILLE, SymbolSet, symbols_of

LABEL = 6
CURVE, ANCHOR, DRAWN, LEVEL = 0, 1, 2, 3
ROLES = ("series-weight", "marker-anchor", "bold marker-sigma", "series-limit")


def curve_rows(
    value_of: Callable[[float], float],
    mapping: Scale,
    width: int,
    height: int,
    symbols: SymbolSet = BRAILLE,
    level: float | None = None,
) -> list[raster.Row]:
    """`value_of` over sigma in width x height cells; `level` is a dotted line under it. `mapping` counts dot rows."""
    columns = raster.Columns(width * symbols.dots_x, 0.0, 1.0)
    for index in range(columns.count):
        sigma = (index + 0.5) / columns.count
        columns.append(sigma, value_of(sigma))
    dotted = raster.level(columns.count, mapping.row(level), dash=4) if level is not None else [0] * columns.count
    traces = [raster.trace(columns, mapping.row, mapping.rows), [0], [0], dotted]
    order = (LEVEL, CURVE)  # the curve is drawn over the level
    drawn = raster.compose([traces[owner] for owner in order], width, height, symbols)
    names = bytes.maketrans(bytes(range(len(order))), bytes(order))
    return [raster.Row(row.text, row.owners.translate(names)) for row in drawn]


def place_of(sigma: float, value: float, mapping: Scale, width: int, symbols: SymbolSet = BRAILLE) -> tuple[int, int]:
    """The cell of a point of the curve."""
    return min(width - 1, max(0, int(sigma * width))), mapping.row(value) // symbols.dots_y


def sigma_axis(width: int) -> str:
    """Labels under the curve: clean pictures at the left, noise at the right."""
    left, middle, right = "0 clean", "σ 0.5", "noise 1"
    if width < len(left) + len(middle) + len(right) + 4:
        left, right = "0", "1"
    gap = max(1, width // 2 - len(left) - len(middle) // 2)
    text = left + " " * gap + middle
    return text + right.rjust(width - len(text))


class SigmaPlot(Grid):
    """Axes around a plot. `on_sized` is called when there is room to paint in."""

    DEFAULT_CSS = f"""
    SigmaPlot {{ grid-size: 2 2; grid-columns: {LABEL} 1fr; grid-rows: 1fr 1; height: 1fr; width: 1fr; }}
    """

    def __init__(self, on_sized: Callable[[], None], *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.plot = Plot(on_sized)
        self._y, self._x = LineView(), LineView()

    def compose(self) -> ComposeResult:
        yield self._y
        yield self.plot
        yield LineView()
        yield self._x

    def show(self, rows: list[raster.Row], labels: Mapping[int, str], roles: Sequence[str] = ROLES) -> None:
        """Rows of cells, and the labels of the y axis by row."""
        width, height = self.plot.size
        self.plot.show(rows, roles)
        tick, plain = symbols_of(self).axis
        room = LABEL - 2
        self._y.show(
            [
                line((f"{labels.get(y, ''):>{room}} ", "axis"), (tick if y in labels else plain, "axis"))
                for y in range(height)
            ]
        )
        self._x.show([line((sigma_axis(width), "axis"))])

    def say(self, text: str) -> None:
        """Words in the place of a curve."""
        self.plot.say(text)
        self._y.show([])
        self._x.show([])

"""Several runs on one chart: each with a colour and a letter, which stands on its line and in the table."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from textual.app import ComposeResult
from textual.containers import Grid
from textual.widget import Widget

from acrf_tui.charts import raster, scale
from acrf_tui.charts.axes import AXIS_WIDTH, x_labels, y_lines
from acrf_tui.charts.line_chart import SMOOTHING
from acrf_tui.charts.lines import LineView, line
from acrf_tui.charts.plot import Plot
from acrf_tui.charts.symbols import BRAILLE, SymbolSet, symbols_of

LETTERS = "ABCDEF"
ROLES = tuple(f"run-{number}" for number in range(1, len(LETTERS) + 1))
LETTERS_A_LINE = 3
"""How often a run's letter stands on its line."""
CROSS = "│"


@dataclass(frozen=True, slots=True)
class Trace:
    """One run on the chart. `index` is its place among the compared, which gives letter and colour; xs rise."""

    index: int
    xs: Sequence[float]
    ys: Sequence[float]


@dataclass(frozen=True, slots=True)
class Scene:
    """How traces are drawn. `begin`..`end` is the x range; `cross` the x of the crosshair."""

    begin: float
    end: float
    log: bool = False
    smooth: bool = False
    spiky: bool = False
    """The bounds may leave out the few highest and lowest parts."""
    cross: float | None = None


@dataclass(frozen=True, slots=True)
class Picture:
    """What was drawn: rows of cells, the roles of their owners, and how values map to rows."""

    rows: list[raster.Row]
    roles: tuple[str, ...]
    mapping: scale.Scale


def draw(
    traces: Sequence[Trace], scene: Scene, width: int, height: int, bounds: scale.Bounds, symbols: SymbolSet = BRAILLE
) -> Picture:
    """The traces in width x height cells, over one another, later ones above. `bounds` remembers the y range."""
    columns = [_gather(one, scene, width * symbols.dots_x) for one in traces]
    low, high = _bounds(columns, scene, bounds)
    rows = height * symbols.dots_y
    mapping = scale.Scale(low, high, rows, scene.log)
    masks = [raster.trace(one, mapping.row, rows) for one in columns]
    roles = [ROLES[one.index] for one in traces]
    cells = raster.compose(masks, width, height, symbols)
    taken: set[tuple[int, int]] = set()
    for owner, (one, gathered) in enumerate(zip(traces, columns, strict=True)):
        for x, y in _letter_places(gathered, mapping, symbols, owner, len(traces), taken):
            taken.add((x, y))
            raster.put(cells, x, y, LETTERS[one.index], owner)
    if scene.cross is not None and scene.begin <= scene.cross <= scene.end:
        x = min(width - 1, int((scene.cross - scene.begin) / (scene.end - scene.begin) * width))
        for y in range(height):
            if cells[y].text[x] == " ":
                raster.put(cells, x, y, CROSS if symbols.dots_x == 2 else "|", len(roles))
    return Picture(cells, (*roles, "axis"), mapping)


def _gather(one: Trace, scene: Scene, count: int) -> raster.Columns:
    columns = raster.Columns(count, scene.begin, scene.end)
    first = bisect_left(one.xs, scene.begin)
    columns.extend(one.xs, one.ys, first, bisect_left(one.xs, math.nextafter(scene.end, math.inf)))
    return columns.smoothed(max(2, count // SMOOTHING)) if scene.smooth else columns


def _bounds(columns: Sequence[raster.Columns], scene: Scene, bounds: scale.Bounds) -> tuple[float, float]:
    pairs = [one.likely_bounds() if scene.spiky else one.bounds() for one in columns]
    found = [pair for pair in pairs if pair is not None]
    if not found:
        return bounds.update(0.0, 1.0, log=False) if not scene.log else bounds.update(0.1, 1.0, log=True)
    low, high = min(pair[0] for pair in found), max(pair[1] for pair in found)
    if scene.log:
        positive = [value for one in columns for value in one.low if value > 0]
        low = max(low, min(positive, default=scale.LOG_FLOOR))
    return bounds.update(low, max(low, high), log=scene.log)


def _letter_places(
    columns: raster.Columns,
    mapping: scale.Scale,
    symbols: SymbolSet,
    order: int,
    of: int,
    taken: set[tuple[int, int]],
) -> list[tuple[int, int]]:
    """Cells on the line, spread over its length, each run's at other places, and one near its end."""
    there = [index for index, value in enumerate(columns.last) if value == value]
    if not there:
        return []
    shares = [(part + (order + 0.5) / of) / LETTERS_A_LINE for part in range(LETTERS_A_LINE)]
    wanted = [*(int(share * (len(there) - 1)) for share in shares[:-1]), len(there) - 1]
    places = []
    for place in dict.fromkeys(wanted):
        for back in range(place, max(-1, place - 8 * symbols.dots_x), -1):
            column = there[back]
            cell = column // symbols.dots_x, mapping.row(columns.last[column]) // symbols.dots_y
            if cell not in taken and cell not in places:
                places.append(cell)
                break
    return places


class RunsChart(Widget):
    """Traces with axes; repaints only the cells that changed."""

    ALLOW_SELECT = False
    DEFAULT_CSS = f"""
    RunsChart {{ height: 1fr; }}
    RunsChart Grid {{ grid-size: 2 2; grid-columns: {AXIS_WIDTH} 1fr; grid-rows: 1fr 1; }}
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.plot = Plot(self.paint)
        self.y_axis, self.x_axis = LineView(), LineView()
        self.message = ""
        """Shown while there is nothing to draw."""
        self.unit = "step"
        self.traces: list[Trace] = []
        self.scene = Scene(0.0, 1.0)
        self.bounds = scale.Bounds()

    def compose(self) -> ComposeResult:
        with Grid():
            yield self.y_axis
            yield self.plot
            yield LineView()
            yield self.x_axis

    def show(self, traces: Sequence[Trace], scene: Scene, unit: str, message: str = "") -> None:
        """Draw these traces."""
        self.traces, self.scene, self.unit, self.message = list(traces), scene, unit, message
        self.paint()

    def paint(self) -> None:
        """Draw what was shown last, if there is room."""
        width, height = self.plot.size
        if width < 4 or height < 2:
            return
        if not any(len(one.xs) for one in self.traces):
            self.plot.say(self.message)
            self.y_axis.show([])
            self.x_axis.show([])
            return
        symbols = symbols_of(self)
        picture = draw(self.traces, self.scene, width, height, self.bounds, symbols)
        self.plot.show(picture.rows, picture.roles)
        self.y_axis.show(y_lines(picture.mapping, height, symbols))
        self.x_axis.show([line((x_labels(self.scene.begin, self.scene.end, width, self.unit), "axis"))])

"""A line chart: several series over one x axis, drawn in braille, repainting only the cells that changed."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual.app import ComposeResult

from acrf_tui.charts import raster, scale
from acrf_tui.charts.axes import AXIS_WIDTH, cell_of, nearest, x_lines, y_lines
from acrf_tui.charts.lines import LineView
from acrf_tui.charts.plot import TILES, Plot
from acrf_tui.charts.pointer import PointedChart
from acrf_tui.charts.symbols import SymbolSet, symbols_of
from acrf_tui.charts.view import ChartView

if TYPE_CHECKING:
    from acrf_tui.series import Marker

SMOOTHING = 16
"""A smooth series is a mean over this part of the width."""
ROOM_FOR_MARKERS = 7
"""Rows of a chart from which on markers get one of their own."""

Points = tuple[Sequence[float], Sequence[float]]
"""x and y of a series that has x values of its own."""


@dataclass(frozen=True, slots=True)
class Series:
    """How one series is drawn.

    `spiky`: the y bounds may leave out its few highest and lowest columns. `smooth`: a trailing mean is drawn.
    `points`: a few values with x values of their own, each a mark on the line that joins them.
    """

    key: str
    role: str
    thick: bool = False
    spiky: bool = False
    smooth: bool = False
    points: bool = False


class LineChart(PointedChart):
    """Series over steps with axes. Give it the data with `set_data`, then call `paint` when it is time to draw.

    Charts with the same `view` show the same steps and the same crosshair.
    """

    ALLOW_SELECT = False
    DEFAULT_CSS = f"""
    LineChart {{ layout: grid; grid-size: 2 2; grid-columns: {AXIS_WIDTH} 1fr; grid-rows: 1fr 1; height: 1fr; }}
    LineChart.-marked {{ grid-rows: 1fr 2; }}
    LineChart.-bare {{ grid-size: 1 1; grid-columns: 1fr; grid-rows: 1fr; }}
    LineChart.-bare > LineView {{ display: none; }}
    """

    def __init__(
        self,
        series: Sequence[Series],
        *,
        axes: bool = True,
        tiles: int = TILES,
        view: ChartView | None = None,
        id: str | None = None,
    ) -> None:
        super().__init__(id=id, classes="" if axes else "-bare")
        self.series = list(series)
        self.axes = axes
        self.view = view if view is not None else ChartView()
        self.log_scale = False
        self.visible_keys = {one.key for one in series}
        self.levels: list[tuple[float, str]] = []
        """Horizontal lines: value and role."""
        self.floor: float | None = None
        """The linear y axis reaches down to it: a value that hardly changes looks like one."""
        self.markers: Sequence[Marker] = ()
        """What happened at which step, by reference."""
        self.message = ""
        """Shown in the middle while there is nothing to draw."""
        self.bounds = scale.Bounds()
        self.plot = Plot(self.paint, tiles)
        self.y_axis = LineView()
        self.x_axis = LineView()
        self._xs: Sequence[float] = ()
        self._ys: Mapping[str, Sequence[float]] = {}
        self._points: Mapping[str, Points] = {}
        self._length = 0
        """Samples that were there at `set_data`: a view that is held still does not run ahead of its panel."""
        self._version = -1
        self._columns: dict[str, raster.Columns] = {}
        self.view.listen(self.paint)

    def compose(self) -> ComposeResult:
        yield self.y_axis
        yield self.plot
        yield LineView()
        yield self.x_axis

    def set_data(
        self,
        xs: Sequence[float],
        ys: Mapping[str, Sequence[float]],
        total: float = 0.0,
        version: int = 0,
        own_xs: Mapping[str, Points] | None = None,
    ) -> None:
        """The data, by reference: sequences that only grow. `version` changes when earlier points changed.

        `own_xs`: key -> (xs, ys) of the series that are `points`.
        """
        if version != self._version or xs is not self._xs:
            self._columns.clear()
            self._version = version
        self._xs, self._ys, self._points, self._length = xs, ys, own_xs or {}, len(xs)
        self.view.data(xs[-1] if self._length else 0.0, total)

    def show_axes(self, shown: bool) -> None:
        """Show the axes, or leave all the room to the plot."""
        if shown is not self.axes:
            self.axes = shown
            self.set_class(not shown, "-bare")  # lays out anew; the plot paints when it has its new size

    # ------------------------------------------------------------------ reading

    @property
    def steps(self) -> Sequence[float]:
        """The x values of the samples."""
        return self._xs

    def cross_index(self) -> int | None:
        """Index of the sample under the crosshair, None without one."""
        return None if self.view.cross is None else nearest(self._xs, self.view.cross)

    def move_cross(self, cells: int) -> None:
        """Move the crosshair by cells, at least by one sample for each; it stops at the ends of the data."""
        index = self.cross_index()
        if index is None:
            return
        begin, end = self.view.window()
        stride = (end - begin) / max(1, self.plot.size.width)
        wanted = nearest(self._xs, self._xs[index] + cells * stride)
        assert wanted is not None
        wanted = max(wanted, index + cells) if cells > 0 else min(wanted, index + cells)
        self.view.read(self._xs[min(len(self._xs) - 1, max(0, wanted))])

    def toggle_cross(self) -> None:
        """Put the crosshair on the newest step that is shown, or take it away."""
        if self.view.cross is not None and self.view.held:
            self.view.read(None)
        elif len(self._xs):
            index = nearest(self._xs, self.view.window()[1] if self.view.cross is None else self.view.cross)
            self.view.read(None if index is None else self._xs[index])

    def markers_at_cross(self) -> list[Marker]:
        """The markers in the crosshair's cell."""
        cross, width = self.view.cross, self.plot.size.width
        if cross is None or not width:
            return []
        window = self.view.window()
        cell = cell_of(cross, *window, width)
        return [marker for marker in self.markers if cell_of(marker.step, *window, width) == cell]

    # ------------------------------------------------------------------ drawing

    def paint(self) -> None:
        """Draw the data as it is now, if there is room."""
        width, height = self.plot.size
        if width <= 0 or height <= 0:
            return
        marked = self.axes and bool(self.markers) and self.size.height >= ROOM_FOR_MARKERS
        if marked is not self.has_class("-marked"):
            self.set_class(marked, "-marked")  # lays out anew; the plot paints when it has its new size
        self._length = min(self._length, len(self._xs))  # a resume from an older checkpoint takes steps back
        if not self._length:
            self.plot.say(self.message)
            if self.axes:
                self.y_axis.show([])
                self.x_axis.show([])
            return
        symbols = symbols_of(self)
        begin, end = self.view.window()
        shown = [one for one in self.series if one.key in self.visible_keys and self._has(one)]
        columns = {one.key: self._gather(one, width * symbols.dots_x, begin, end) for one in shown}
        low, high = self._bounds(shown, columns)
        rows = height * symbols.dots_y
        mapping = scale.Scale(low, high, rows, self.log_scale)
        traces: list[list[int]] = []
        roles: list[str] = []
        for value, role in self.levels:
            if low <= value <= high:
                traces.append(raster.level(width * symbols.dots_x, mapping.row(value), dash=4))
                roles.append(role)
        first = len(roles)
        for one in shown:
            traces.append(raster.trace(columns[one.key], mapping.row, rows, thick=one.thick))
            roles.append(one.role)
        drawn = raster.compose(traces, width, height, symbols)
        roles += ["bad", "crosshair"]
        for owner, one in enumerate(shown, start=first):
            if one.points:
                self._put_points(drawn, self._points[one.key], mapping, symbols, owner)
        broken = raster.broken_cells([columns[one.key] for one in shown], symbols.dots_x)
        for x in broken:
            raster.put(drawn, x, 0, symbols.broken, len(roles) - 2)
        self._put_cross(drawn, shown, mapping, symbols, first, len(roles) - 1)
        self.plot.show(drawn, roles)
        if self.axes:
            self.y_axis.show(y_lines(mapping, height, symbols))
            self.x_axis.show(x_lines(begin, end, width, self.markers if marked else None, symbols))

    def _has(self, one: Series) -> bool:
        return one.key in self._points and len(self._points[one.key][0]) > 0 if one.points else one.key in self._ys

    def _gather(self, one: Series, count: int, begin: float, end: float) -> raster.Columns:
        if one.points:
            return raster.columns_of_points(*self._points[one.key], count, begin, end)
        key = one.key
        columns = self._columns.get(key)
        ys = self._ys[key]
        wanted = (count, begin, end)
        stop = bisect_right(self._xs, end, 0, self._length)
        if columns is None or (columns.count, columns.x0, columns.x1) != wanted or columns.consumed > stop:
            columns = self._columns[key] = raster.Columns(*wanted)
            columns.consumed = bisect_left(self._xs, begin, 0, stop)
        if columns.consumed < stop:
            columns.extend(self._xs, ys, columns.consumed, stop)
        return columns.smoothed(max(2, count // SMOOTHING)) if one.smooth else columns

    def _bounds(self, shown: list[Series], columns: dict[str, raster.Columns]) -> tuple[float, float]:
        found = []
        for one in shown:
            gathered = columns[one.key]
            pair = gathered.likely_bounds() if one.spiky else gathered.bounds()
            if pair is not None:
                found.append(pair)
        if not found:
            return self.bounds.update(0.0, 1.0)
        low, high = min(pair[0] for pair in found), max(pair[1] for pair in found)
        if self.floor is not None and not self.log_scale:
            low = min(low, self.floor)
        for value, _ in self.levels:
            if value < 3 * high:
                high = max(high, value)
        if self.log_scale:
            positive = [v for one in shown for v in columns[one.key].low if v == v and v > 0]
            low = max(low, min(positive, default=scale.LOG_FLOOR))
        return self.bounds.update(low, max(low, high), log=self.log_scale)

    def _put_points(
        self, drawn: list[raster.Row], points: Points, mapping: scale.Scale, symbols: SymbolSet, owner: int
    ) -> None:
        begin, end = self.view.window()
        xs, ys = points
        width = len(drawn[0].text)
        inside = range(bisect_left(xs, begin), bisect_right(xs, end))
        if len(inside) > width // 2:
            return  # marks side by side would hide the line
        for index in inside:
            if math.isfinite(ys[index]):
                y = mapping.row(ys[index]) // symbols.dots_y
                raster.put(drawn, cell_of(xs[index], begin, end, width), y, symbols.disc, owner)

    def _put_cross(
        self,
        drawn: list[raster.Row],
        shown: list[Series],
        mapping: scale.Scale,
        symbols: SymbolSet,
        first: int,
        role: int,
    ) -> None:
        index = self.cross_index()
        begin, end = self.view.window()
        if index is None or not begin <= self._xs[index] <= end:
            return
        x = cell_of(self._xs[index], begin, end, len(drawn[0].text))
        for y, row in enumerate(drawn):
            if row.owners[x] == raster.EMPTY:
                raster.put(drawn, x, y, symbols.crosshair, role)
        for owner, one in enumerate(shown, start=first):
            value = math.nan if one.points or one.smooth else self._ys[one.key][index]
            if math.isfinite(value):
                raster.put(drawn, x, mapping.row(value) // symbols.dots_y, symbols.disc, owner)

"""A line chart: several series over one x axis, drawn in braille, repainting only the cells that changed."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rich.segment import Segment
from rich.style import Style
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.events import Resize
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from acrf_tui.charts import raster, scale
from acrf_tui.charts.lines import LineView, line, wrap
from acrf_tui.charts.palette import style_of
from acrf_tui.charts.symbols import BRAILLE, SymbolSet

TILES = 6
AXIS_WIDTH = 8
SMOOTHING = 16
"""A smooth series is a mean over this part of the width."""


@dataclass(frozen=True, slots=True)
class Series:
    """How one series is drawn.

    `spiky`: the y bounds may leave out its few highest and lowest columns. `smooth`: a trailing mean is drawn.
    """

    key: str
    role: str
    thick: bool = False
    spiky: bool = False
    smooth: bool = False


class PlotTile(Widget):
    """One vertical slice of a plot.

    Textual writes a changed row from the widget's left edge to the last changed cell, so narrow widgets send less.
    """

    ALLOW_SELECT = False
    DEFAULT_CSS = "PlotTile { width: 1fr; height: 1fr; }"

    def render_line(self, y: int) -> Strip:
        plot = self.parent
        assert isinstance(plot, Plot)
        return plot.strip(self, y)


class Plot(Horizontal):
    """The area of cells inside the axes."""

    ALLOW_SELECT = False
    DEFAULT_CSS = "Plot { width: 1fr; height: 1fr; }"

    def __init__(self, on_sized: Callable[[], None], tiles: int = TILES) -> None:
        super().__init__()
        self.tiles = [PlotTile() for _ in range(tiles)]
        self.rows: list[raster.Row] = []
        self.roles: Sequence[str] = ()
        self._on_sized = on_sized
        self._styles: dict[int, Style] = {}

    def compose(self) -> ComposeResult:
        yield from self.tiles

    def on_resize(self, _: Resize) -> None:
        self.call_after_refresh(self._on_sized)

    def notify_style_update(self) -> None:
        self._styles.clear()
        super().notify_style_update()
        for tile in self.tiles:
            tile.refresh()

    def offsets(self) -> list[int]:
        """The left edge of every tile, then the right edge of the last."""
        edges = [0]
        for tile in self.tiles:
            edges.append(edges[-1] + tile.size.width)
        return edges

    def show(self, rows: list[raster.Row], roles: Sequence[str]) -> None:
        """Put these rows on screen; only spans that differ from the last ones are repainted."""
        old = self.rows
        whole = len(old) != len(rows) or tuple(roles) != tuple(self.roles)
        self.rows = rows
        if tuple(roles) != tuple(self.roles):
            self._styles.clear()
        self.roles = tuple(roles)
        edges = self.offsets()
        for index, tile in enumerate(self.tiles):
            left, right = edges[index], edges[index + 1]
            if whole:
                tile.refresh()
                continue
            for y, (before, after) in enumerate(zip(old, rows, strict=True)):
                if before is after or before == after:
                    continue
                span = raster.changed_span(
                    raster.Row(before.text[left:right], before.owners[left:right]),
                    raster.Row(after.text[left:right], after.owners[left:right]),
                )
                if span is not None:
                    tile.refresh(Region(span[0], y, span[1] - span[0], 1))

    def strip(self, tile: PlotTile, y: int) -> Strip:
        """The cells of one tile in row y."""
        width = tile.size.width
        if y >= len(self.rows):
            return Strip([Segment(" " * width, self._style(raster.EMPTY))], width)
        left = self.offsets()[self.tiles.index(tile)]
        text = self.rows[y].text[left : left + width].ljust(width)
        owners = self.rows[y].owners[left : left + width].ljust(width, bytes([raster.EMPTY]))
        segments: list[Segment] = []
        start = 0
        for x in range(1, width + 1):
            if x == width or (owners[x] != owners[start] and text[x] != " "):
                segments.append(Segment(text[start:x], self._style(owners[start])))
                start = x
        return Strip(segments, width)

    def _style(self, owner: int) -> Style:
        style = self._styles.get(owner)
        if style is None:
            role = self.roles[owner] if owner < len(self.roles) else "muted"
            style = self._styles[owner] = style_of(self, role)
        return style


class LineChart(Widget):
    """Series over steps with axes. Give it the data with `set_data`, then call `paint` when it is time to draw."""

    ALLOW_SELECT = False
    DEFAULT_CSS = f"""
    LineChart {{ layout: grid; grid-size: 2 2; grid-columns: {AXIS_WIDTH} 1fr; grid-rows: 1fr 1; height: 1fr; }}
    LineChart.-bare {{ grid-size: 1 1; grid-columns: 1fr; grid-rows: 1fr; }}
    """

    def __init__(
        self,
        series: Sequence[Series],
        *,
        axes: bool = True,
        tiles: int = TILES,
        symbols: SymbolSet = BRAILLE,
        id: str | None = None,
    ) -> None:
        super().__init__(id=id, classes="" if axes else "-bare")
        self.series = list(series)
        self.axes = axes
        self.symbols = symbols
        self.log_scale = False
        self.zoom = 0
        """How often the x range is halved around the last steps."""
        self.visible_keys = {one.key for one in series}
        self.levels: list[tuple[float, str]] = []
        """Horizontal lines: value and role."""
        self.message = ""
        """Shown in the middle while there is nothing to draw."""
        self.bounds = scale.Bounds()
        self.plot = Plot(self.paint, tiles)
        self.y_axis = LineView()
        self.x_axis = LineView()
        self._xs: Sequence[float] = ()
        self._ys: Mapping[str, Sequence[float]] = {}
        self._total = 0.0
        self._version = -1
        self._columns: dict[str, raster.Columns] = {}

    def compose(self) -> ComposeResult:
        if not self.axes:
            yield self.plot
            return
        yield self.y_axis
        yield self.plot
        yield LineView()
        yield self.x_axis

    def set_data(
        self, xs: Sequence[float], ys: Mapping[str, Sequence[float]], total: float = 0.0, version: int = 0
    ) -> None:
        """The data, by reference: sequences that only grow. `version` changes when earlier points changed."""
        if version != self._version or xs is not self._xs:
            self._columns.clear()
            self._version = version
        self._xs, self._ys, self._total = xs, ys, total

    def window(self) -> tuple[float, float]:
        """First and last step that are shown."""
        return scale.window(self._xs[-1] if len(self._xs) else 0.0, self._total, self.zoom)

    def paint(self) -> None:
        """Draw the data as it is now, if there is room."""
        width, height = self.plot.size
        if width <= 0 or height <= 0:
            return
        if not len(self._xs):
            self._paint_message(width, height)
            return
        begin, end = self.window()
        shown = [one for one in self.series if one.key in self.visible_keys and one.key in self._ys]
        columns = {one.key: self._gather(one, width * self.symbols.dots_x, begin, end) for one in shown}
        low, high = self._bounds(shown, columns)
        rows = height * self.symbols.dots_y
        mapping = scale.Scale(low, high, rows, self.log_scale)
        traces: list[list[int]] = []
        roles: list[str] = []
        for value, role in self.levels:
            if low <= value <= high:
                traces.append(raster.level(width * self.symbols.dots_x, mapping.row(value), dash=4))
                roles.append(role)
        for one in shown:
            traces.append(raster.trace(columns[one.key], mapping.row, rows, thick=one.thick))
            roles.append(one.role)
        self.plot.show(raster.compose(traces, width, height, self.symbols), roles)
        if self.axes:
            self._paint_axes(mapping, width, height, (begin, end))

    def _gather(self, one: Series, count: int, begin: float, end: float) -> raster.Columns:
        key = one.key
        columns = self._columns.get(key)
        ys = self._ys[key]
        wanted = (count, begin, end)
        if columns is None or (columns.count, columns.x0, columns.x1) != wanted or columns.consumed > len(ys):
            columns = self._columns[key] = raster.Columns(*wanted)
            columns.consumed = bisect_left(self._xs, begin)
        if columns.consumed < len(ys):
            columns.extend(self._xs, ys, columns.consumed, len(ys))
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
        for value, _ in self.levels:
            if value < 3 * high:
                high = max(high, value)
        if self.log_scale:
            positive = [v for one in shown for v in columns[one.key].low if v == v and v > 0]
            low = max(low, min(positive, default=scale.LOG_FLOOR))
        return self.bounds.update(low, max(low, high), log=self.log_scale)

    def _paint_axes(self, mapping: scale.Scale, width: int, height: int, span: tuple[float, float]) -> None:
        marks = scale.ticks(mapping.low, mapping.high, max(3, height // 4), log=self.log_scale)
        labels: dict[int, str] = {}
        step = marks[1] - marks[0] if len(marks) > 1 else mapping.high - mapping.low
        for value in marks:
            text = scale.log_label(value) if self.log_scale else scale.label(value, step)
            labels.setdefault(mapping.row(value) // self.symbols.dots_y, text)
        tick, plain = self.symbols.axis
        self.y_axis.show(
            [
                line((f"{labels.get(y, ''):>{AXIS_WIDTH - 2}} ", "axis"), (tick if y in labels else plain, "axis"))
                for y in range(height)
            ]
        )
        self.x_axis.show([line((x_labels(*span, width, "step"), "axis"))])

    def _paint_message(self, width: int, height: int) -> None:
        rows = [raster.Row(" " * width, bytes([raster.EMPTY]) * width) for _ in range(height)]
        lines = wrap(self.message, width - 2)[:height]
        for y, text in enumerate(lines, start=(height - len(lines)) // 2):
            rows[y] = raster.Row(text.center(width), bytes(width))
        self.plot.show(rows, ("muted",))
        if self.axes:
            self.y_axis.show([])
            self.x_axis.show([])


def x_labels(begin: float, end: float, width: int, unit: str) -> str:
    """Round numbers under an x axis, and its unit at the right edge."""
    cells = [" "] * width
    room = width - len(unit) - 1
    marks = scale.ticks(begin, end, max(4, width // 11))
    step = marks[1] - marks[0] if len(marks) > 1 else end
    free = 0
    for value in marks:
        text = scale.label(value, step)
        place = round((value - begin) / (end - begin) * (width - 1)) if end > begin else 0
        start = max(0, place - (len(text) // 2 if value else 0))
        if start >= free and start + len(text) <= room:
            cells[start : start + len(text)] = text
            free = start + len(text) + 2
    cells[room + 1 :] = unit
    return "".join(cells)

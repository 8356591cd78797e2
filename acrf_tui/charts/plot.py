"""The area of cells that charts draw in; it repaints only the cells that changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.segment import Segment
from rich.style import Style
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.events import Resize
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from acrf_tui.charts import raster
from acrf_tui.charts.lines import wrap
from acrf_tui.charts.palette import style_of
from acrf_tui.charts.symbols import symbols_of

TILES = 6


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

    def say(self, text: str) -> None:
        """Show words in the middle, where there is nothing to draw yet."""
        width, height = self.size
        rows = [raster.Row(" " * width, bytes([raster.EMPTY]) * width) for _ in range(height)]
        lines = wrap(text, width - 2)[:height]
        for y, part in enumerate(lines, start=(height - len(lines)) // 2):
            rows[y] = raster.Row(part.center(width), bytes(width))
        self.show(rows, ("muted",))

    def strip(self, tile: PlotTile, y: int) -> Strip:
        """The cells of one tile in row y."""
        width = tile.size.width
        if y >= len(self.rows):
            return Strip([Segment(" " * width, self._style(raster.EMPTY))], width)
        left = self.offsets()[self.tiles.index(tile)]
        text = symbols_of(self).spell(self.rows[y].text)[left : left + width].ljust(width)
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

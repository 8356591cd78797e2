"""Widgets of rows that draw only the rows that look different."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from textual.geometry import Region
from textual.strip import Strip

if TYPE_CHECKING:
    from textual.scroll_view import ScrollView as Base
else:
    Base = object  # a second widget among the bases would hide the styles of the first


class RowByRow(Base):
    """Where Textual asks to draw all of it (a focus that changes, a key in a text), draws the rows that differ."""

    _looking = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._painted: dict[int, Strip] = {}

    def paint_line(self, y: int) -> Strip:
        """The row `y` of the widget as it looks now."""
        raise NotImplementedError

    def render_line(self, y: int) -> Strip:
        strip = self._painted[y] = self.paint_line(y)
        return strip

    def refresh(self, *regions: Region, repaint: bool = True, layout: bool = False, recompose: bool = False) -> Any:
        """Draw again what looks different; all of it where the layout changes."""
        if regions or layout or recompose or not repaint or not self.is_mounted or not self.size:
            return super().refresh(*regions, repaint=repaint, layout=layout, recompose=recompose)
        if not self._looking:
            self._looking = True
            self.call_later(self._refresh_rows)
        return self

    def _refresh_rows(self) -> None:
        self._looking = False
        if not self.is_mounted or not self.display:
            return
        for y in range(self.size.height):
            if self._painted.get(y) != self.paint_line(y):
                super().refresh(Region(0, y, self.size.width, 1))

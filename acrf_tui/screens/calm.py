"""A screen that stays calm below a dialog."""

from __future__ import annotations

from textual.screen import Screen, ScreenResultType


class CalmScreen(Screen[ScreenResultType]):
    """Below a dialog it repaints what changed, once.

    Textual 8.2.8 marks a screen below another as dirty again after each of its repaints, all of it: once anything there
    has changed, the whole terminal is sent with every message that the screen gets, until the dialog closes.
    """

    def _compositor_refresh(self) -> None:
        super()._compositor_refresh()
        if self.app.screen is not self:
            self._repaint_required = False

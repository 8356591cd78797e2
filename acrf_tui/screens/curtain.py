"""A screen that is first drawn when it has something to show: half-made frames cost a slow line seconds."""

from __future__ import annotations

from textual.screen import ScreenResultType

from acrf_tui.screens.calm import CalmScreen

PATIENCE_S = 1.0
"""After so long a screen is drawn as it is: a history on a slow disk must not look like an app that hangs."""


class CurtainScreen(CalmScreen[ScreenResultType]):
    """Lays itself out as any screen, but draws nothing until `raise_curtain`."""

    _curtain_down = True

    def on_mount(self) -> None:
        self.set_timer(PATIENCE_S, self._draw)

    def raise_curtain(self) -> None:
        """Draw, once what was just shown has found its place."""
        if self._curtain_down:
            self.call_after_refresh(self._draw)

    def _draw(self) -> None:
        if self._curtain_down:
            self._curtain_down = False
            self.refresh()

    def _compositor_refresh(self) -> None:
        if not self._curtain_down:
            super()._compositor_refresh()

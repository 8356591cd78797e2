"""The line at the bottom: the keys that work now, and what they do.

Textual's Footer composes itself anew at every change of focus, which lays out and repaints the whole screen (40 KB).
"""

from __future__ import annotations

from rich.cells import cell_len
from textual import events
from textual.screen import Screen

from acrf_tui.charts.lines import LineView, Span, line


class KeysLine(LineView):
    """Key and description of every live binding that is shown; a click presses the key."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._places: list[tuple[int, str]] = []

    def on_mount(self) -> None:
        self.screen.bindings_updated_signal.subscribe(self, self._changed)

    def on_unmount(self) -> None:
        self.screen.bindings_updated_signal.unsubscribe(self)

    def on_resize(self, event: events.Resize) -> None:
        self.paint()

    def _changed(self, screen: Screen[object]) -> None:
        if self.is_attached and screen is self.screen:
            self.paint()

    def paint(self) -> None:
        """Show the bindings that are live, as many as fit."""
        shown = [one for one in self.screen.active_bindings.values() if one.binding.show]
        texts = [(self.app.get_key_display(one.binding), one.binding.description) for one in shown]
        width = self.size.width
        loose = sum(cell_len(key) + cell_len(text) + 4 for key, text in texts) <= width
        gap, start = ("   ", " ") if loose else (" ", "")
        spans: list[Span] = [(start, "text")]
        self._places = []
        edge = len(start)
        for one, (key, text) in zip(shown, texts, strict=True):
            edge += cell_len(key) + 1 + cell_len(text) + len(gap)
            if edge - len(gap) > width:
                break
            spans.append((key, "bold key" if one.enabled else "muted"))
            spans.append((f" {text}{gap}", "text" if one.enabled else "muted"))
            self._places.append((edge, one.binding.key if one.enabled else ""))
        self.show([line(*spans)])

    def on_click(self, event: events.Click) -> None:
        """Press the key under the pointer."""
        for edge, key in self._places:
            if event.x < edge:
                if key:
                    self.app.simulate_key(key)
                return

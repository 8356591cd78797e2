"""The line at the bottom: the keys that work now, and what they do.

Textual's Footer composes itself anew at every change of focus, which lays out and repaints the whole screen (40 KB).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.cells import cell_len
from textual import events
from textual.binding import ActiveBinding
from textual.screen import Screen

from acrf_tui.charts.lines import LineView, Span, line

KEPT = frozenset({"app.leave", "app.help"})
"""Ids of the bindings that stay where not all have room: the way out, and the way to all others."""

Key = str | tuple[str, str]
"""The id of a binding, or a key that a field takes and what it does there."""
Entry = tuple[str, str, str, bool, bool]
"""Key as it is written, description, key as it is pressed, whether it is enabled, whether it stays."""


class KeysLine(LineView):
    """Key and description of every live binding that is shown; a click presses the key.

    `first`: what matters most at this moment and comes before all others, shown or not.
    """

    def __init__(self, first: Callable[[], Sequence[Key]] = list, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._first = first
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
        """Show the bindings that are live, as many as fit; the last ones go first."""
        entries = self._entries()
        width = self.size.width
        loose = sum(cell_len(entry[0]) + cell_len(entry[1]) + 4 for entry in entries) <= width
        gap, start = ("   ", " ") if loose else (" ", "")

        def needed() -> int:
            return sum(cell_len(entry[0]) + 1 + cell_len(entry[1]) + len(gap) for entry in entries) - len(gap)

        while not loose and needed() > width:
            leaves = max((index for index, entry in enumerate(entries) if not entry[4]), default=len(entries) - 1)
            if leaves < 0:
                break
            entries.pop(leaves)
        spans: list[Span] = [(start, "text")]
        self._places = []
        edge = len(start)
        for key, text, pressed, enabled, _ in entries:
            edge += cell_len(key) + 1 + cell_len(text) + len(gap)
            spans.append((key, "bold key" if enabled else "muted"))
            spans.append((f" {text}{gap}", "text" if enabled else "muted"))
            self._places.append((edge, pressed if enabled else ""))
        self.show([line(*spans)])

    def _entries(self) -> list[Entry]:
        live = list(self.screen.active_bindings.values())
        by_id: dict[str | None, ActiveBinding] = {}
        for one in live:
            by_id.setdefault(one.binding.id, one)  # the first of several keys
        entries: list[Entry] = []
        said: set[str] = set()
        for wanted in self._first():
            if not isinstance(wanted, str):
                entries.append((*wanted, wanted[0], True, False))
            elif (found := by_id.get(wanted)) is not None:
                entries.append(self._entry(found))
                said.add(wanted)
        return entries + [self._entry(one) for one in live if one.binding.show and one.binding.id not in said]

    def _entry(self, one: ActiveBinding) -> Entry:
        binding = one.binding
        key = self.app.get_key_display(binding)
        return key, binding.description, binding.key, one.enabled, binding.id in KEPT

    def on_click(self, event: events.Click) -> None:
        """Press the key under the pointer."""
        for edge, key in self._places:
            if event.x < edge:
                if key:
                    self.app.simulate_key(key)
                return

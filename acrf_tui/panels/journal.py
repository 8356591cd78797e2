"""Journal: commands with their answers, checkpoints, warnings and errors, newest at the bottom."""

from __future__ import annotations

from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from acrf_tui.charts.lines import Line, LineView, fit, line
from acrf_tui.panels import numbers
from acrf_tui.panels.panel import Panel
from acrf_tui.state import Entry, RunState

ICONS: dict[str, tuple[str, str]] = {
    "state": ("●", "accent"),
    "done": ("✓", "good"),
    "refused": ("✗", "warn"),
    "checkpoint": ("◆", "good"),
    "preview": ("▣", "accent"),
    "warning": ("▲", "warn"),
    "error": ("✗", "bad"),
    "note": ("·", "muted"),
}


def entry_line(entry: Entry, width: int) -> Line:
    """Time, step, icon and text of one entry."""
    icon, role = ICONS.get(entry.kind, ICONS["note"])
    step = f"{entry.step:>7,}" if entry.step else " " * 7
    head = f"{numbers.clock(entry.time)} {step} "
    text = " ".join(entry.text.split())
    body = "bad" if entry.kind == "error" else "warn" if entry.kind in ("warning", "refused") else "text"
    return line((head, "muted"), (f"{icon} ", role), (fit(text, max(1, width - len(head) - 2)), body))


class JournalPanel(Panel):
    """The last entries; up and down look further back."""

    TITLE = "Journal"
    NUMBER = 7
    EVERY = 1
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "scroll_back(1)", "Older", show=False, id="journal.older", tooltip="Show older entries"),
        Binding("down", "scroll_back(-1)", "Newer", show=False, id="journal.newer", tooltip="Show newer entries"),
        Binding("pageup", "scroll_back(10)", "Older", show=False, id="journal.page-older", tooltip="A page back"),
        Binding("pagedown", "scroll_back(-10)", "Newer", show=False, id="journal.page-newer", tooltip="A page forward"),
    ]

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._back = 0
        self._state: RunState | None = None

    def compose(self) -> ComposeResult:
        yield LineView(id="journal-lines")

    def paint(self, state: RunState, now: float) -> None:
        self._state = state
        view = self.query_one("#journal-lines", LineView)
        width, height = view.size
        if height <= 0:
            return
        if not state.journal:
            view.show([line(("nothing yet: commands, checkpoints and warnings appear here", "muted"))])
            return
        self._back = min(self._back, max(0, len(state.journal) - height))
        end = len(state.journal) - self._back
        entries = list(state.journal)[max(0, end - height) : end]
        view.show([entry_line(entry, width) for entry in entries])

    def action_scroll_back(self, lines: int) -> None:
        """Look further back, or come forward again."""
        self._back = max(0, self._back + lines)
        if self._state is not None:
            self.paint(self._state, 0.0)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """The wheel looks back."""
        self.action_scroll_back(1)
        event.stop()

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """The wheel comes forward."""
        self.action_scroll_back(-1)
        event.stop()

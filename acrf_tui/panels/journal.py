"""Journal: commands with their answers, checkpoints, warnings and errors, newest at the bottom."""

from __future__ import annotations

from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Input

from acrf_tui.charts.lines import Line, LineView, fit, line, wrap
from acrf_tui.charts.symbols import ASCII, BRAILLE, SymbolSet
from acrf_tui.filtering import matching
from acrf_tui.journal import Entry
from acrf_tui.panels import numbers
from acrf_tui.panels.keys import Key
from acrf_tui.panels.panel import Panel
from acrf_tui.state import RunState

EMPTY = "nothing yet: commands, checkpoints and warnings appear here"
HOW_TO_FILTER = "/ filters"
ICONS: dict[str, tuple[str, str, str]] = {
    "state": ("●", "*", "accent"),
    "done": ("✓", "+", "good"),
    "refused": ("✗", "x", "warn"),
    "checkpoint": ("◆", "#", "good"),
    "validation": ("◇", "%", "accent"),
    "preview": ("▣", "=", "accent"),
    "warning": ("▲", "!", "warn"),
    "error": ("✗", "x", "bad"),
    "note": ("·", ".", "muted"),
}
"""Kind of entry -> icon, icon in ASCII, role of its colour."""


def entry_line(entry: Entry, width: int, symbols: SymbolSet = BRAILLE) -> Line:
    """Time, step, icon and text of one entry."""
    icon, plain, role = ICONS.get(entry.kind, ICONS["note"])
    icon = plain if symbols is ASCII else icon
    step = f"{entry.step:>7,}" if entry.step else " " * 7
    head = f"{numbers.clock(entry.time)} {step} "
    text = " ".join(entry.text.split())
    body = "bad" if entry.kind == "error" else "warn" if entry.kind in ("warning", "refused") else "text"
    return line((head, "muted"), (f"{icon} ", role), (fit(text, max(1, width - len(head) - 2)), body))


def words_of(entry: Entry) -> str:
    """What a filter looks in: the kind of the entry and its text."""
    return f"{entry.kind} {entry.text}"


class JournalPanel(Panel):
    """The last entries; up and down look further back, a filter leaves out what does not match."""

    TITLE = "Journal"
    NUMBER = 7
    EVERY = 1
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "scroll_back(1)", "Older", show=False, id="journal.older", tooltip="Show older entries"),
        Binding("down", "scroll_back(-1)", "Newer", show=False, id="journal.newer", tooltip="Show newer entries"),
        Binding("pageup", "scroll_back(10)", "Older", show=False, id="journal.page-older", tooltip="A page back"),
        Binding("pagedown", "scroll_back(-10)", "Newer", show=False, id="journal.page-newer", tooltip="A page forward"),
        Binding(
            "escape", "clear_filter", "All entries", show=False, id="journal.all", tooltip="Show all entries again"
        ),
    ]

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.lowest: Entry | None = None
        """The lowest entry in view, the newest unless one looks back."""
        self._back = 0
        self._state: RunState | None = None

    def compose(self) -> ComposeResult:
        yield LineView(id="journal-lines")
        yield Input(placeholder="words to look for, such as: warning checkpoint", id="journal-filter", compact=True)

    def on_mount(self) -> None:
        self._show_field(False)

    def ask_filter(self) -> None:
        """Let the user type what to look for."""
        self._show_field(True)
        self.query_one(Input).focus()

    def keys_first(self) -> list[Key]:
        """How to leave the filter's field, and how to be rid of a filter."""
        if self.query_one(Input).has_focus:
            return [("enter", "Keep"), "journal.all"]
        if self.query(Input).filter(".-shown"):
            return ["journal.all"]
        return ["journal.filter", "journal.older", "journal.newer"] if self.has_class("-maximized") else []

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filter while it is typed."""
        event.stop()
        self._back = 0
        self._repaint()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Keep the filter, and go back to the entries."""
        event.stop()
        self._show_field(bool(event.value.strip()))
        self.focus()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Escape belongs to the filter only while there is one."""
        return action != "clear_filter" or bool(self.query(Input).filter(".-shown"))

    def _show_field(self, shown: bool) -> None:
        field = self.query_one(Input)
        field.display = shown
        field.set_class(shown, "-shown")
        self.refresh_bindings()

    def action_clear_filter(self) -> None:
        """Show all entries again."""
        self.query_one(Input).value = ""
        self._show_field(False)
        self.focus()

    def paint(self, state: RunState, now: float) -> None:
        self._state = state
        view = self.query_one("#journal-lines", LineView)
        width, height = view.size
        if height <= 0:
            return
        if not state.journal:
            self._say_count("")
            why = "nothing was said before the run ended" if state.ended else EMPTY
            view.show([line((text, "muted")) for text in wrap(why, max(8, width))])
            return
        wanted = self.query_one(Input).value
        found = matching(state.journal, wanted, words_of)
        self._say_count(f"{len(found)} of {len(state.journal)}, esc shows all" if wanted.strip() else HOW_TO_FILTER)
        if not found:
            view.show([line((f"none of {len(state.journal)} entries has these words (esc shows all)", "muted"))])
            return
        self._back = min(self._back, max(0, len(found) - height))
        end = len(found) - self._back
        self.lowest = found[end - 1]
        view.show([entry_line(entry, width, self.symbols) for entry in found[max(0, end - height) : end]])

    def _say_count(self, text: str) -> None:
        if self.border_subtitle != text:
            self.border_subtitle = text

    def _repaint(self) -> None:
        if self._state is not None:
            self.paint(self._state, 0.0)

    def action_scroll_back(self, lines: int) -> None:
        """Look further back, or come forward again."""
        self._back = max(0, self._back + lines)
        self._repaint()

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """The wheel looks back."""
        self.action_scroll_back(1)
        event.stop()

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """The wheel comes forward."""
        self.action_scroll_back(-1)
        event.stop()

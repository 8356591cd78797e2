"""The dialog that says which panels there are, and shows or hides them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import Static

from acrf_tui.charts.lines import Line, LineView, line
from acrf_tui.screens.arrangement import Arrangement


@dataclass(frozen=True, slots=True)
class PanelRow:
    """One panel of the list. `has_room`: when it is shown, this terminal has a place for it."""

    id: str
    number: int
    title: str
    has_room: bool = True


def row_line(row: PanelRow, hidden: bool, chosen: bool, width: int) -> Line:
    """Number, title, and whether it is shown, over the whole width."""
    if hidden:
        state, role = f"hidden: {row.number} opens it", "muted"
    elif row.has_room:
        state, role = "shown", "good"
    else:
        state, role = f"no room here: {row.number} opens it", "warn"
    title = f"{row.title:<22}"
    gap = " " * max(0, width - 6 - len(title) - len(state))
    mark = "bold reverse accent" if chosen else "key"
    return line(
        (f" {row.number} ", mark), ("   ", "text"), (title, "muted" if hidden else "text"), (f"{gap}{state}", role)
    )


class PanelList(LineView, can_focus=True):
    """The rows, one of them chosen."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "move(-1)", "Up", show=False, id="panels.up", tooltip="The panel above"),
        Binding("down", "move(1)", "Down", show=False, id="panels.down", tooltip="The panel below"),
        Binding("space", "show_or_hide", "Show or hide", id="panels.toggle", tooltip="Show or hide the panel"),
    ]

    class Toggled(Message):
        """A panel is to be shown or hidden."""

        def __init__(self, panel: str) -> None:
            super().__init__()
            self.panel = panel

    def __init__(self, rows: Sequence[PanelRow], *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.rows = list(rows)
        self.chosen = 0
        self._hidden: frozenset[str] = frozenset()

    def on_resize(self, event: events.Resize) -> None:
        self.paint(self._hidden)

    def paint(self, hidden: frozenset[str]) -> None:
        """Show which panels are hidden."""
        self._hidden = hidden
        width = self.size.width
        self.show([row_line(row, row.id in hidden, at == self.chosen, width) for at, row in enumerate(self.rows)])

    def action_move(self, by: int) -> None:
        """Choose the panel above or below, from end to end."""
        self.chosen = (self.chosen + by) % len(self.rows)
        self.paint(self._hidden)

    def action_show_or_hide(self) -> None:
        """Show or hide the chosen panel."""
        self.post_message(self.Toggled(self.rows[self.chosen].id))

    def on_key(self, event: events.Key) -> None:
        """A panel's number chooses it and shows or hides it."""
        for at, row in enumerate(self.rows):
            if event.character == str(row.number):
                event.stop()
                self.chosen = at
                self.action_show_or_hide()

    def on_click(self, event: events.Click) -> None:
        """A click is the number."""
        if event.y < len(self.rows):
            self.chosen = event.y
            self.action_show_or_hide()


class PanelsDialog(ModalScreen[Arrangement | None]):
    """Returns the new arrangement, None to leave all as it is."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,p", "keep", "Keep", id="panels.keep", tooltip="Use this arrangement, also in later runs"),
        Binding("r", "reset", "Show all", id="panels.reset", tooltip="Show all panels"),
        Binding("escape,q", "cancel", "Cancel", id="dialog.cancel", tooltip="Close without a change"),
    ]

    def __init__(self, rows: Sequence[PanelRow], arrangement: Arrangement) -> None:
        super().__init__()
        self.rows = list(rows)
        self.arrangement = arrangement

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog", id="panels") as box:
            box.border_title = "Panels"
            box.border_subtitle = "space toggles · enter keeps · r shows all · esc cancels"
            yield PanelList(self.rows, id="panel-list")
            yield Static("", id="panels-says")

    def on_mount(self) -> None:
        view = self.query_one(PanelList)
        view.styles.height = len(self.rows)
        view.focus()
        self._show()

    def on_panel_list_toggled(self, message: PanelList.Toggled) -> None:
        """Show or hide, but for the last one."""
        arrangement = self.arrangement.toggled(message.panel)
        self._show("one panel stays" if arrangement == self.arrangement else "", arrangement)

    def _show(self, says: str = "", arrangement: Arrangement | None = None) -> None:
        self.arrangement = arrangement or self.arrangement
        self.query_one(PanelList).paint(self.arrangement.hidden)
        hidden = len(self.arrangement.hidden)
        count = f"{hidden} of {len(self.rows)} hidden; the others take their room" if hidden else "all are shown"
        self.query_one("#panels-says", Static).update(says or count)

    def action_keep(self) -> None:
        """Close with this arrangement."""
        self.dismiss(self.arrangement)

    def action_reset(self) -> None:
        """Show all panels again."""
        self._show(arrangement=Arrangement(self.arrangement.panels))

    def action_cancel(self) -> None:
        """Close without a change."""
        self.dismiss(None)

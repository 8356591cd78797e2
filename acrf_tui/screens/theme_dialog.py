"""The theme picker: the screen below takes each theme as one moves over it."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.theme import BUILTIN_THEMES
from textual.timer import Timer
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from acrf_tui.printable import printable

SETTLE_SECONDS = 0.15
"""How long the highlight must rest before the theme is shown: each change repaints the whole screen."""


class ThemeDialog(ModalScreen[str | None]):
    """Returns the theme to keep; None: the one from before, which is on again."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "Cancel", id="themes.cancel", tooltip="Back to the theme from before"),
        Binding("enter", "keep", "Keep", id="themes.keep", tooltip="Keep this theme, also tomorrow"),
    ]

    def __init__(self, before: str) -> None:
        super().__init__()
        self.before = before
        self._settle: Timer | None = None

    def compose(self) -> ComposeResult:
        ours = sorted(name for name in self.app.available_themes if name not in BUILTIN_THEMES)
        others = sorted(name for name in self.app.available_themes if name in BUILTIN_THEMES)
        names = [*ours, *others]
        with Vertical(id="themes-box") as box:
            box.border_title = "Themes"
            box.border_subtitle = "enter keeps · esc undoes"
            rows = OptionList(*(self._row(name) for name in names), id="themes", compact=True)
            rows.highlighted = names.index(self.before) if self.before in names else 0
            yield rows

    def _row(self, name: str) -> Option:
        theme = self.app.available_themes[name]
        kind = "light" if not theme.dark else "dark"
        text = Content.assemble(f" {'•' if name == self.before else ' '} {printable(name)[:24]:24} ", (kind, "dim"))
        return Option(text, id=name)

    def on_mount(self) -> None:
        self.query_one(OptionList).focus()

    def on_option_list_option_highlighted(self, message: OptionList.OptionHighlighted) -> None:
        """Show the theme once the highlight rests."""
        if self._settle is not None:
            self._settle.stop()
        self._settle = self.set_timer(SETTLE_SECONDS, self._preview)

    def _chosen(self) -> str:
        option = self.query_one(OptionList).highlighted_option
        return (option.id if option is not None else None) or self.before

    def _preview(self) -> None:
        name = self._chosen()
        if name != self.app.theme and name in self.app.available_themes:
            self.app.theme = name

    def on_option_list_option_selected(self, message: OptionList.OptionSelected) -> None:
        """A click keeps as enter does."""
        self.action_keep()

    def action_keep(self) -> None:
        """Close with the highlighted theme."""
        self.dismiss(self._chosen())

    def action_cancel(self) -> None:
        """Close with the theme from before."""
        if self.app.theme != self.before:
            self.app.theme = self.before
        self.dismiss(None)

"""The line in which one types which runs, or which configs, the launchpad shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.widgets import Input

from acrf_tui.screens.launchpad_lists import ConfigList, RunList

if TYPE_CHECKING:
    from acrf_tui.screens.launchpad import LaunchpadScreen


class FilterLine(Input):
    """Filters while one types; enter keeps the filter, escape drops it, and both go back to the list."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "drop", "Show all", id="filter.drop", tooltip="Drop the filter"),
        Binding("enter", "keep", "Keep", id="filter.keep", tooltip="Keep the filter, and go to the list"),
        Binding("down,tab", "keep", show=False),
    ]

    def __init__(self, runs: bool, words: str) -> None:
        what = "words in the name or state of a run" if runs else "words in the name or comment of a config"
        super().__init__(words, placeholder=what, compact=True, id="launchpad-filter")
        self.runs = runs

    @property
    def _launchpad(self) -> LaunchpadScreen:
        from acrf_tui.screens.launchpad import LaunchpadScreen

        screen = self.screen
        assert isinstance(screen, LaunchpadScreen)
        return screen

    def on_mount(self) -> None:
        self.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Show what fits the words so far."""
        event.stop()
        self._launchpad.filter(event.value, runs=self.runs)

    def on_blur(self, event: events.Blur) -> None:
        """Without the focus it has no use."""
        self.remove()

    def action_keep(self) -> None:
        """Go to the list, as it is filtered."""
        screen = self._launchpad
        runs = screen.query_one(RunList)
        screen.set_focus(runs if self.runs and runs.display else screen.query_one(ConfigList))

    def action_drop(self) -> None:
        """Show everything again."""
        self._launchpad.filter("", runs=self.runs)
        self.action_keep()

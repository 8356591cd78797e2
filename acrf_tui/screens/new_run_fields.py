"""A path field: ghost completion as you type, tab completes, a short list where there are several ways on."""

from __future__ import annotations

from textual import events, on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Input, OptionList

from acrf_tui.screens.new_run_paths import PathSuggester, candidates, common_beginning, holds_what_is_wanted

MOST_SHOWN = 40


class PathInput(Input):
    """An input whose tab key completes; tab with nothing to complete goes on to the next field."""

    def __init__(self, value: str = "", *, placeholder: str = "", id: str | None = None) -> None:
        super().__init__(value, placeholder=placeholder, suggester=PathSuggester(), id=id)

    async def _on_key(self, event: events.Key) -> None:
        field = self.parent
        if isinstance(field, PathField):
            if event.key == "tab" and field.complete():
                event.prevent_default()
                event.stop()
                return
            if event.key == "down" and field.enter_list():
                event.prevent_default()
                event.stop()
                return
        await super()._on_key(event)


class PathField(Vertical):
    """A path input with its completion list."""

    def __init__(self, value: str = "", *, placeholder: str = "", id: str) -> None:
        super().__init__(id=id, classes="path-field")
        self.input = PathInput(value, placeholder=placeholder, id=f"{id}-input")
        self.list = OptionList(id=f"{id}-list", compact=True, markup=False)
        self._completed = ""

    def compose(self) -> ComposeResult:
        yield self.input
        yield self.list

    def on_mount(self) -> None:
        self._hide()

    def complete(self) -> bool:
        """Complete as far as there is one way, else list the ways. False: there was nothing to do."""
        text = self.input.value
        if not text or holds_what_is_wanted(text):
            return False
        found = candidates(text)
        if not found or found == [f"{text}/"] or (text == self._completed and self.list.display):
            self._hide()
            return False
        longer = common_beginning(found)
        grew = len(longer) > len(text)
        if grew:
            self._take(longer)
        if len(found) == 1:
            self._hide()
            return grew
        self._completed = self.input.value
        self.list.set_options(found[:MOST_SHOWN])
        self.list.display = True
        return True

    def enter_list(self) -> bool:
        """Go into the list, if it is open."""
        if self.list.display and self.list.option_count:
            self.list.highlighted = 0
            self.list.focus()
            return True
        return False

    def close_list(self) -> bool:
        """Close the list; False if it was not open."""
        if not self.list.display:
            return False
        self._hide()
        self.input.focus()
        return True

    def _take(self, text: str) -> None:
        self.input.value = text
        self.input.cursor_position = len(text)

    def _hide(self) -> None:
        self.list.display = False
        self._completed = ""

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        if self.list.display and event.value != self._completed:
            self._hide()

    @on(OptionList.OptionSelected)
    def _picked(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self._hide()
        self._take(str(event.option.prompt))
        self.input.focus()

"""What the form does to the text: one field is set, put back or reset."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from acrf_engine.yaml_edit import EditError
from acrf_tui.screens.editor_document import Reading, means, with_field
from acrf_tui.screens.editor_fields import FormField, value_of_typed
from acrf_tui.screens.editor_inline import InlineEditor

if TYPE_CHECKING:
    from acrf_tui.screens.editor import EditorScreen

Reset = Callable[[Reading, Reading, FormField], str]


class FormChanges:
    """Changes fields of an editor's text; each key typed in a field changes the text that the field began with."""

    def __init__(self, screen: EditorScreen) -> None:
        self.screen = screen
        self._origin: Reading | None = None

    def _possible(self) -> bool:
        if self.screen.live.reading.error:
            self.screen.say(f"The form waits until the YAML can be read: {self.screen.live.reading.error}")
            return False
        return self.screen.live.loaded

    def begin(self, field: FormField) -> None:
        """Turn a switch, or open what changes the field; what is too much for a line is changed in the YAML."""
        if not self._opens(field):
            self.screen.fields.release(self.screen.focused or self.screen.fields)

    def _opens(self, field: FormField) -> bool:
        """Whether something opened that will take the keys."""
        screen = self.screen
        if not self._possible() or screen.query(InlineEditor):
            return False
        state = screen.fields.states[field.key]
        if not state.editable:
            screen.to_yaml(field)
            return False
        screen.yaml.begin_change()
        if field.kind == "switch" and isinstance(state.value, bool):
            self._set(screen.live.reading, field, not state.value)
            return False
        inline = InlineEditor(field, state)
        place = screen.fields.place_of_value(inline.rows - 1 if field.kind == "folder" else 0)
        if place is None:
            return False
        self._origin = screen.live.reading
        form = screen.query_one("#form")
        top = screen.fields.region.offset - form.content_region.offset
        slot = form.query_one("#inline-slot")
        inline.place(slot, place.translate(top), top.y + screen.fields.size.height)
        slot.mount(inline)
        return True

    def typed(self, field: FormField, typed: str | list[str]) -> None:
        """What stands in the field now."""
        if self._origin is None:
            return
        if isinstance(typed, list):
            self._set(self._origin, field, typed)
        else:
            self._set(self._origin, field, *value_of_typed(field, typed))

    def end(self, *, keep: bool) -> None:
        """Close what changes a field, if it is open."""
        for inline in self.screen.query(InlineEditor):
            # The focus first: with what has it removed, it would go just anywhere.
            self.screen.set_focus(self.screen.fields, scroll_visible=False)
            inline.remove()
            self.screen.query_one("#inline-slot").visible = False
        origin, self._origin = self._origin, None
        if not keep and origin is not None:
            self.screen.live.change(origin.text)
        if origin is not None:
            self.screen.yaml.end_change()

    def reset(self, how: Reset) -> None:
        """Set the chosen field to its default, or to what the file has."""
        row, live = self.screen.fields.row, self.screen.live
        if row is None or row.field is None or not self._possible():
            return
        try:
            text = how(live.reading, live.before, row.field)
        except EditError as error:
            self._impossible(row.field, error)
            return
        if text == live.text:
            self.screen.app.bell()
        self.screen.yaml.history.checkpoint()
        live.change(text)

    def _set(self, origin: Reading, field: FormField, value: Any, written: str = "") -> None:
        try:
            text = with_field(origin, field, value, written)
        except EditError as error:
            self._impossible(field, error)
            return
        self.screen.live.change(text, origin, means(origin.values, field, value))

    def _impossible(self, field: FormField, error: EditError) -> None:
        self.screen.say(f"{field.dotted}: {error}: change it in the YAML")

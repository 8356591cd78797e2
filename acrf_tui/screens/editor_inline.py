"""What opens over a row to change its value: a line, a folder with completion, a choice, or texts one a line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.geometry import Region, Size
from textual.message import Message
from textual.reactive import Reactive
from textual.widget import Widget
from textual.widgets import Input, OptionList, TextArea
from textual.widgets.option_list import Option

from acrf_tui.screens.editor_document import FieldState
from acrf_tui.screens.editor_fields import FormField
from acrf_tui.screens.launchpad_lists import PickList
from acrf_tui.screens.new_run_fields import PathField, PathInput

ROWS_OF_TEXTS = 6
ROWS_OF_PATHS = 7
ANOTHER = "another value …"


class Line(Input):
    """An input that does not lay out the whole screen again at every key."""

    virtual_size = Reactive(Size(0, 0), layout=False)


class InlineEditor(Container):
    """Changes one field. Every change is posted as it is typed; `Done` says whether to keep it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "done(False, 0)", "Put back", id="editor.put-back", tooltip="The value as it was before"),
        Binding("tab,down", "done(True, 1)", "Keep, next", id="editor.keep-next", tooltip="Keep it; the next setting"),
        Binding("shift+tab,up", "done(True, -1)", "Before", id="editor.keep-before", show=False,
                tooltip="Keep it; the setting before"),
    ]  # fmt: skip

    @dataclass
    class Typed(Message):
        """A value was typed or chosen; of texts, all of them."""

        field: FormField
        typed: str | list[str]

    @dataclass
    class Done(Message):
        """It is finished; `move` rows on."""

        keep: bool
        move: int

    @dataclass
    class Ready(Message):
        """`widget` takes keys now."""

        widget: Widget

    def __init__(self, field: FormField, state: FieldState) -> None:
        super().__init__(id="inline")
        self.field = field
        self.state = state
        self._first = state.shown
        self._finished = False

    @property
    def rows(self) -> int:
        """Rows that it takes, the list of a path field included."""
        match self.field.kind:
            case "choice":
                return min(9, len(self._options()) + 2)
            case "texts":
                return ROWS_OF_TEXTS + 2
            case "folder":
                return ROWS_OF_PATHS
            case _:
                return 1

    def place(self, slot: Widget, value: Region, room: int) -> None:
        """Put `slot`, which holds it, over the value; what opens goes below it in the `room` rows, or above."""
        kind = self.field.kind
        framed = kind in ("choice", "texts")
        rows = self.rows
        y = value.y
        if framed:
            y = value.y + 1 if value.y + 1 + rows <= room else max(0, value.y - rows)
        longest = max((len(text) for text in self._options()), default=0) + 4
        width = min(value.width, max(24, longest)) if kind == "choice" else value.width
        slot.styles.offset = (value.x, y)
        slot.styles.width = width
        slot.styles.height = "auto" if kind == "folder" else rows if framed else 1
        slot.styles.max_height = max(1, room - y)
        slot.visible = True

    def compose(self) -> ComposeResult:
        shown = self.state.shown
        match self.field.kind:
            case "choice":
                self.add_class("-framed")
                options = PickList(*(Option(text) for text in self._options()), compact=True, markup=False)
                options.highlighted = self._options().index(shown) if shown in self._options() else 0
                yield options
            case "texts":
                self.add_class("-framed")
                texts = self.state.value if isinstance(self.state.value, list) else []
                self._first = "\n".join(texts)
                area = TextArea(self._first, compact=True, soft_wrap=False, highlight_cursor_line=False)
                area.cursor_blink = False
                yield area
                self.border_subtitle = "one a line · tab keeps"
            case "folder":
                yield PathField(shown, placeholder=self.field.allowed, id="path")
            case _:
                yield Line(shown, placeholder=self.field.allowed, compact=True, select_on_focus=True)

    def on_mount(self) -> None:
        self._begin(self.query(f"{PathInput.__name__}, Input, TextArea, OptionList").first())

    def _begin(self, widget: Widget) -> None:
        self.screen.set_focus(widget)  # at once: `focus` would let keys pass before it
        self.post_message(self.Ready(widget))

    def _options(self) -> list[str]:
        if self.field.kind != "choice":
            return []
        return [*self.field.choices, *([ANOTHER] if self.field.types else [])]

    def action_done(self, keep: bool, move: int) -> None:
        """Finish; an open list of folders is closed first."""
        if not keep and any(field.close_list() for field in self.query(PathField)):
            return
        if not self._finished:
            self._finished = True
            self.post_message(self.Done(keep, move))

    @on(Input.Changed)
    def _line_changed(self, event: Input.Changed) -> None:
        event.stop()
        if event.value != self._first:
            self._first = "\0"  # from now on the first value is one like any other
            self.post_message(self.Typed(self.field, event.value))

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.action_done(True, 0)

    @on(TextArea.Changed)
    def _texts_changed(self, event: TextArea.Changed) -> None:
        event.stop()
        typed = [text for text in event.text_area.text.split("\n") if text.strip()]
        if "\n".join(typed) != self._first:
            self._first = "\0"
            self.post_message(self.Typed(self.field, typed))

    @on(OptionList.OptionSelected)
    async def _chosen(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        text = self._options()[event.option_index]
        if text != ANOTHER:
            self.post_message(self.Typed(self.field, text))
            self.action_done(True, 0)
            return
        self.remove_class("-framed")
        await self.query(OptionList).remove()
        if self.parent is not None and isinstance(self.parent, Widget):
            self.parent.styles.height = 1
        shown = "" if self.state.shown in self.field.choices else self.state.shown
        self._first = shown
        line = Line(shown, placeholder=self.field.allowed, compact=True)
        await self.mount(line)
        self._begin(line)

"""The list of settings: rows to go through with the keys, of which only those that change are drawn again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.widget import Widget

from acrf_engine.config_problems import Problem
from acrf_tui.charts.lines import Line, joined
from acrf_tui.charts.palette import style_of
from acrf_tui.screens.editor_document import FieldState, reason_of_group
from acrf_tui.screens.editor_fields import FormField, FormGroup, Key
from acrf_tui.screens.editor_repaint import RowByRow
from acrf_tui.screens.editor_rows import Columns, Row, columns_for, field_line, group_line, head_line, rows_of

INDENT_OF_VALUE = 4


class FieldList(RowByRow, ScrollView, can_focus=True):
    """The groups and their fields, one chosen."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"field-list--chosen"}
    ALLOW_SELECT = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "choose", "Change", id="editor.change", tooltip="Change the setting, or open its group"),
        Binding("space", "choose", "Change", id="editor.change-too", tooltip="Change the setting", show=False),
        Binding("d", "screen.to_default", "Default", id="editor.default", tooltip="The setting at its default"),
        Binding("u", "screen.to_file", "As in file", id="editor.as-in-file", tooltip="The setting as in the file"),
        Binding("slash", "screen.filter", "Filter", id="editor.filter", tooltip="Only settings that hold some words"),
        Binding("up", "move(-1)", "Up", id="editor.up", tooltip="The setting above", show=False),
        Binding("down", "move(1)", "Down", id="editor.down", tooltip="The setting below", show=False),
        Binding("shift+tab", "step(-1)", "Before", id="editor.before", tooltip="The setting before", show=False),
        Binding("tab", "step(1)", "Next", id="editor.next", tooltip="The next setting, then the YAML", show=False),
        Binding("pageup", "page(-1)", "Page up", id="editor.page-up", tooltip="A page up", show=False),
        Binding("pagedown", "page(1)", "Page down", id="editor.page-down", tooltip="A page down", show=False),
        Binding("home", "edge(0)", "First", id="editor.first", tooltip="The first setting", show=False),
        Binding("end", "edge(-1)", "Last", id="editor.last", tooltip="The last setting", show=False),
        Binding("left", "fold(True)", "Close", id="editor.close-group", tooltip="Close the group", show=False),
        Binding("right", "fold(False)", "Open", id="editor.open-group", tooltip="Open the group", show=False),
    ]  # fmt: skip

    @dataclass
    class Moved(Message):
        """Another row is chosen, or its state is new."""

        row: Row | None

    @dataclass
    class Chosen(Message):
        """A field is to be changed."""

        field: FormField

    def __init__(self, groups: Sequence[FormGroup], *, id: str) -> None:
        super().__init__(id=id)
        self.groups = list(groups)
        self.closed: set[Key] = set()
        self.words: list[str] = []
        self.states: Mapping[Key, FieldState] = {}
        self.problems: Sequence[Problem] = ()
        self.dimmed = False
        self.rows: list[Row] = []
        self.columns = Columns(20, 20, 0)
        self._lines: list[Line] = []
        self._cursor = 0
        self._styles_by_spec: dict[str, Style] = {}
        self._held: list[events.Key] | None = None
        """Keys that came after a field was chosen and before what changes it was there to take them."""

    # ------------------------------------------------------------------ what is shown

    @property
    def row(self) -> Row | None:
        """The chosen row."""
        return self.rows[self._cursor] if self._cursor < len(self.rows) else None

    def show(self, states: Mapping[Key, FieldState], problems: Sequence[Problem], *, dimmed: bool = False) -> None:
        """New states of the fields; `dimmed` where the YAML cannot be read, so that these are the last known."""
        self.states, self.problems, self.dimmed = states, problems, dimmed
        self.rebuild()

    def rebuild(self) -> None:
        """Make the rows again, keeping the choice; draws those that differ."""
        chosen = self.row
        self.rows = rows_of(self.groups, self.closed, self.words)
        if chosen is not None:
            at = next((i for i, row in enumerate(self.rows) if row.key == chosen.key), None)
            if at is None:
                at = next((i for i, row in enumerate(self.rows) if row.group.key == chosen.group.key), 0)
            if at != self._cursor:
                self._refresh_row(self._cursor)
                self._cursor = at
                self._refresh_row(at)
        width = self.size.width
        if not width:
            return
        self.columns = columns_for(self.groups, width - 1)
        before, self._lines = self._lines, [self._line(row, width - 1) for row in self.rows]
        self.virtual_size = Size(width, len(self.rows))
        for y in range(max(len(before), len(self._lines))):
            if before[y : y + 1] != self._lines[y : y + 1]:
                self._refresh_row(y)
        self.post_message(self.Moved(self.row))

    def _line(self, row: Row, width: int) -> Line:
        if row.field is None:
            reason = reason_of_group(row.group, self.problems)
            closed = row.group.key in self.closed and not self.words
            return group_line(row.group, self.states, width, closed=closed, reason=reason)
        if row.field.key not in self.states:
            return ()
        spans = field_line(row.field, self.states[row.field.key], self.columns)
        return tuple((text, "muted") for text, _ in spans) if self.dimmed else spans

    @property
    def head(self) -> Line:
        """The names of the columns."""
        return head_line(self.columns)

    def on_resize(self, event: events.Resize) -> None:
        self._lines = []
        self.rebuild()
        self.call_after_refresh(self._reveal)

    # ------------------------------------------------------------------ drawing

    def notify_style_update(self) -> None:
        """A theme or focus change: styles are looked up again."""
        self._styles_by_spec.clear()
        super().notify_style_update()

    def _style(self, spec: str) -> Style:
        style = self._styles_by_spec.get(spec)
        if style is None:
            style = self._styles_by_spec[spec] = style_of(self, spec)
        return style

    def paint_line(self, y: int) -> Strip:
        """The row `y` of the widget, the chosen one in its own background."""
        index = y + self.scroll_offset.y
        width = self.size.width
        spans = self._lines[index] if index < len(self._lines) else ()
        over = self._over(index)
        segments = [Segment(text, self._style(spec) + over) for text, spec in joined(spans)]
        used = sum(cell_len(segment.text) for segment in segments)
        segments.append(Segment(" " * max(0, width - used), self._style("text") + over))
        return Strip(segments).crop(0, width)

    def _over(self, index: int) -> Style:
        if index != self._cursor or index >= len(self._lines):
            return Style()
        found = self.get_component_rich_style("field-list--chosen")
        return Style(bgcolor=found.bgcolor, bold=found.bold, underline=found.underline)

    def _refresh_row(self, index: int) -> None:
        y = index - self.scroll_offset.y
        if 0 <= y < self.size.height:
            self.refresh(Region(0, y, self.size.width, 1))

    # ------------------------------------------------------------------ moving

    def go_to(self, index: int) -> None:
        """Choose a row."""
        index = max(0, min(index, len(self.rows) - 1))
        if index != self._cursor:
            old, self._cursor = self._cursor, index
            self._refresh_row(old)
            self._refresh_row(index)
            self._reveal()
        self.post_message(self.Moved(self.row))

    def go_to_field(self, key: Key) -> bool:
        """Choose a field, opening its group; False where the filter hides it."""
        for group in self.groups:
            if any(field.key == key for field in group.fields) and group.key in self.closed:
                self.closed.discard(group.key)
                self.rebuild()
        at = next((index for index, row in enumerate(self.rows) if row.key == key), None)
        if at is not None:
            self.go_to(at)
        return at is not None

    def _reveal(self, below: int = 0) -> None:
        height = self.size.height
        top = self.scroll_offset.y
        if self._cursor < top + 1:
            top = max(0, self._cursor - 1)  # the heading above a first field comes into view as well
        elif self._cursor + below >= top + height:
            top = self._cursor + below - height + 1
        if top != self.scroll_offset.y:
            self.scroll_to(y=top, animate=False, immediate=True)

    def place_of_value(self, below: int = 0) -> Region | None:
        """Where the chosen field's value stands, in cells of this widget; with `below` rows in view under it."""
        if self.row is None or self.row.field is None:
            return None
        self._reveal(below)
        x = 2 + self.columns.name + 2
        return Region(x - 1, self._cursor - self.scroll_offset.y, self.size.width - x, 1)

    def action_move(self, by: int) -> None:
        """One row up or down."""
        self.go_to(self._cursor + by)

    def action_step(self, by: int) -> None:
        """To the next field; past the ends, out of the list."""
        index = self._cursor + by
        while 0 <= index < len(self.rows) and self.rows[index].field is None:
            index += by
        if 0 <= index < len(self.rows):
            self.go_to(index)
        elif by > 0:
            self.screen.focus_next()
        else:
            self.screen.focus_previous()

    def action_page(self, by: int) -> None:
        """A page up or down."""
        self.go_to(self._cursor + by * max(1, self.size.height - 1))

    def action_edge(self, index: int) -> None:
        """To the first or last row."""
        self.go_to(index if index >= 0 else len(self.rows) - 1)

    def action_fold(self, close: bool) -> None:
        """Close or open the group of the chosen row."""
        row = self.row
        if row is None or self.words or (row.group.key in self.closed) == close:
            return
        if close:
            self.closed.add(row.group.key)
        else:
            self.closed.discard(row.group.key)
        self.rebuild()
        self._reveal()

    def action_choose(self) -> None:
        """Change the field, or open or close the group."""
        row = self.row
        if row is not None and row.field is not None:
            self._held = []
            self.post_message(self.Chosen(row.field))
        elif row is not None:
            self.action_fold(row.group.key not in self.closed)

    async def _on_key(self, event: events.Key) -> None:
        focused = self.screen.focused
        bound = self._bindings.key_to_bindings.get(event.key, [])
        actions = {binding.action for binding in bound}
        if self._held is not None:
            self._held.append(event)
        elif focused is self and actions & {"choose", "screen.filter"}:
            # Here and now: bindings come after the keys that are already on their way.
            await self.run_action(next(iter(actions)))
        elif focused is not None and focused is not self:
            focused.post_message(events.Key(event.key, event.character))
        else:
            await super()._on_key(event)
            return
        event.stop()
        event.prevent_default()

    def release(self, target: Widget) -> None:
        """What was typed meanwhile goes to what has the focus now."""
        held, self._held = self._held or [], None
        for event in held:
            target.post_message(events.Key(event.key, event.character))

    def on_click(self, event: events.Click) -> None:
        """A click chooses, a second one changes; one on a heading opens or closes the group."""
        index = event.y + self.scroll_offset.y
        if index >= len(self.rows):
            return
        again = index == self._cursor and event.chain >= 2
        self.go_to(index)
        if again or self.rows[index].field is None:
            self.action_choose()

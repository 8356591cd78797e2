"""The config editor: a form made from the schema beside the YAML. The YAML is the truth; the form changes it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Horizontal
from textual.message import Message
from textual.reactive import Reactive
from textual.screen import Screen
from textual.timer import Timer
from textual.widget import Widget
from textual.widgets import Input, Static, TextArea
from textual.worker import Worker, WorkerState

from acrf_engine.yaml_edit import EditError
from acrf_tui.charts.lines import LineView, fit, line, spread
from acrf_tui.panels.keys import KeysLine
from acrf_tui.screens.editor_document import (
    Reading,
    as_in_file,
    at_default,
    equal_values,
    means,
    read,
    reasons_by_field,
    states_of,
    with_field,
)
from acrf_tui.screens.editor_drafts import DraftKeeper
from acrf_tui.screens.editor_fields import FormField, form_of, value_of_typed
from acrf_tui.screens.editor_files import Draft, FileTrouble, Source, find_draft, is_shipped, read_source
from acrf_tui.screens.editor_inline import InlineEditor
from acrf_tui.screens.editor_list import FieldList
from acrf_tui.screens.editor_rows import LEGEND, detail_lines
from acrf_tui.screens.editor_saving import Saving
from acrf_tui.screens.editor_yaml import YamlText
from acrf_tui.screens.launchpad_configs import printable, short_path
from acrf_tui.screens.launchpad_runs import age

READ_SECONDS = 0.12
"""How long typing must rest before the text is read and checked."""


class EditorScreen(Screen[Path | None]):
    """Edits the config `path`; where that is not there yet, it begins as a copy of `base`.

    Dismissed with the file that was saved last, or None.
    """

    CSS_PATH = "../styles/editor.tcss"
    AUTO_FOCUS = "#fields"
    HORIZONTAL_BREAKPOINTS = [  # noqa: RUF012 (an instance variable in Screen)
        (0, "-w-tiny"),
        (60, "-w-narrow"),
        (110, "-w-normal"),
        (170, "-w-wide"),
    ]
    VERTICAL_BREAKPOINTS = [(0, "-h-tiny"), (20, "-h-short"), (30, "-h-normal")]  # noqa: RUF012
    focused: Reactive[Widget | None] = Reactive(None, repaint=False)  # Screen's own repaints all of it: 40 KB a tab
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", "Filter", id="editor.filter", tooltip="Show only settings that hold some words"),
        Binding("f2", "save", "Save", id="editor.save", tooltip="Save the YAML to its file"),
        Binding("ctrl+s", "save", "Save", id="editor.save-too", tooltip="Save the YAML to its file", show=False),
        Binding("f4", "other_side", "YAML", id="editor.other-side", tooltip="Go between the form and the YAML"),
        Binding("escape", "leave", "Leave", id="editor.leave", tooltip="Drop the filter, then leave the editor"),
        Binding("q", "leave", "Leave", id="editor.leave-too", tooltip="Leave the editor", show=False),
        Binding("f1", "help", "Help", id="editor.help", tooltip="Show the keys that work now"),
        Binding("question_mark", "help", "Help", id="app.help", tooltip="Show the keys that work now", show=False),
        Binding(
            "f3", "next_problem", "Problem", id="editor.next-problem", tooltip="Go to what is wrong next"
        ),
        Binding("f6", "save_as", "Save as", id="editor.save-as", tooltip="Save to another file"),
        Binding("ctrl+z", "undo", "Undo", id="editor.undo", tooltip="Take back the last change", show=False),
        Binding("ctrl+y", "redo", "Redo", id="editor.redo", tooltip="Make it again", show=False),
    ]

    @dataclass
    class Loaded(Message):
        """The file was read, or could not be."""

        source: Source
        reading: Reading
        draft: Draft | None
        trouble: str = ""

    @dataclass
    class Read(Message):
        """A text was read; `expected` are the values that the form meant it to have, made from `origin`."""

        reading: Reading
        expected: dict[str, Any] | None
        origin: Reading | None

    def __init__(self, path: Path, *, base: Path | None = None) -> None:
        super().__init__()
        self.path = path
        self.base = base
        self.groups = form_of()
        self.saving = Saving(self)
        self.drafts = DraftKeeper(path, self._say_trouble)
        self.text = ""
        self.before = Reading()
        """The file as it was read or saved last."""
        self.reading = Reading()
        """What `text` means, once it has been read; an older text until then."""
        self.good = Reading()
        """The last reading that had values."""
        self.loaded = False
        self._origin: Reading | None = None
        """What the open inline editor began with: each of its changes is made to this."""
        self._last_edit: tuple[Reading, dict[str, Any]] | None = None
        self._settle: Timer | None = None
        self._waiting: list[Callable[[], None]] = []
        self._said: tuple[object, ...] = ()

    # ------------------------------------------------------------------ building

    def compose(self) -> ComposeResult:
        yield LineView(id="editor-head")
        with Horizontal(id="editor-body"):
            with Container(id="form") as form:
                form.border_title = "Settings"
                form.border_subtitle = LEGEND
                yield Input(placeholder="words of a setting's name or help", id="editor-filter", compact=True)
                yield LineView(id="form-head")
                yield FieldList(self.groups, id="fields")
                yield LineView(id="form-detail")
            side = YamlText(id="yaml")
            side.border_title = "YAML, as it will be saved"
            yield side
        yield LineView(id="editor-problems")
        yield Static("This terminal is too small: 60x20 is the least. Nothing typed is lost.", id="editor-too-small")
        yield KeysLine(id="keys")

    @property
    def fields(self) -> FieldList:
        return self.query_one(FieldList)

    @property
    def yaml(self) -> YamlText:
        return self.query_one(YamlText)

    @property
    def dirty(self) -> bool:
        """Whether there is something that is not in the file."""
        return self.loaded and self.text != self.before.text

    @property
    def name_of_file(self) -> str:
        return self.path.name

    def on_mount(self) -> None:
        self.query_one("#editor-filter").display = False
        self.app.theme_changed_signal.subscribe(self, lambda _: self.call_after_refresh(self._show_all))
        self.run_worker(self._load, thread=True, group="load", exit_on_error=False)

    def on_unmount(self) -> None:
        if self.dirty:
            self.drafts.keep_now(self.text)

    def on_resize(self, event: events.Resize) -> None:
        self.end_editing(keep=True)
        self.call_after_refresh(self._show_all)

    # ------------------------------------------------------------------ reading the file

    def _load(self) -> None:
        source, trouble = Source(), ""
        try:
            if self.path.exists() or self.base is None:
                source = read_source(self.path)
            else:
                copied = read_source(self.base)
                source = Source(copied.text, None, copied.crlf, copied.marked)
        except FileTrouble as error:
            trouble = str(error)
        draft = find_draft(self.path)
        if draft is not None and draft.text == source.text:
            draft = None
        self.post_message(self.Loaded(source, read(source.text, self.name_of_file), draft, trouble))

    def on_editor_screen_loaded(self, message: Loaded) -> None:
        """Show the file, and offer what was typed the last time."""
        if message.trouble and message.draft is None:
            self.app.notify(message.trouble, title="Cannot be edited", severity="error", markup=False)
            self.dismiss(None)
            return
        self.saving.opened(message.source, copy_only=is_shipped(self.path))
        self.before = self.reading = message.reading
        self.good = message.reading if not message.reading.error else Reading()
        self.text = message.source.text
        self.loaded = True
        self.yaml.load_text(self.text)
        self._close_what_is_plain()
        self.fields.rebuild()
        self.fields.action_step(1)
        self._show_all()
        if message.draft is not None:
            self._offer(message.draft)

    def _close_what_is_plain(self) -> None:
        states = states_of(self.groups, self.good, self.before)
        closed = {g.key for g in self.groups if g.key and not any(states[f.key].differs for f in g.fields)}
        room = self.fields.size.height
        if sum(len(group.fields) + 1 for group in self.groups) > room:
            self.fields.closed = closed

    def _offer(self, draft: Draft) -> None:
        from acrf_tui.screens.editor_dialogs import DraftDialog

        def answered(answer: str | None) -> None:
            if answer == "discard":
                self.drafts.drop()
            else:
                self.set_text(draft.text)

        ago = age(max(0.0, time.time() - draft.written))
        when = "just now" if ago == "now" else f"{ago} ago"
        said = f"{printable(self.name_of_file)} was edited {when} and not saved: the app ended, or the line dropped."
        self.app.push_screen(DraftDialog(said), answered)

    # ------------------------------------------------------------------ changing the text

    def set_text(self, text: str, origin: Reading | None = None, expected: dict[str, Any] | None = None) -> None:
        """Change the text; `expected` are the values that it is meant to have, made from the text of `origin`."""
        if text == self.text:
            return
        self.text = text
        self._last_edit = (origin, expected) if origin is not None and expected is not None else None
        self.yaml.show_text(text)
        self._text_changed()

    @on(TextArea.Changed, "#yaml")
    def _typed_in_yaml(self, event: TextArea.Changed) -> None:
        text = event.text_area.text
        if self.loaded and text != self.text:
            self.text = text
            self._last_edit = None
            self._text_changed()

    def _text_changed(self) -> None:
        self.drafts.keep_soon(self, self.text if self.dirty else None)
        if self._settle is not None:
            self._settle.stop()
        self._settle = self.set_timer(READ_SECONDS, self._read)
        self._show_head()

    def _read(self) -> None:
        text, last = self.text, self._last_edit
        origin, expected = last if last is not None else (None, None)

        def work() -> None:
            self.post_message(self.Read(read(text, self.name_of_file), expected, origin))

        self.run_worker(work, thread=True, group="read", exclusive=True, exit_on_error=False)

    def on_editor_screen_read(self, message: Read) -> None:
        """Show what the text means now, unless it has changed meanwhile."""
        reading = message.reading
        if reading.text != self.text:
            return
        expected, origin = message.expected, message.origin
        if expected is not None and origin and (reading.error or not equal_values(reading.values, expected)):
            self._refuse(origin)
            return
        self.take(reading)

    def take(self, reading: Reading) -> None:
        """The meaning of the text that is shown."""
        self.reading = reading
        if not reading.error:
            self.good = reading
        self._show_form()
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            call()

    def _refuse(self, origin: Reading) -> None:
        self.end_editing(keep=True)
        self.set_text(origin.text)
        self._say_trouble("The way this file is written cannot be changed from the form: change it in the YAML (f4).")

    def when_read(self, call: Callable[[], None]) -> None:
        """Call as soon as `reading` is that of the text."""
        if self.reading.text == self.text:
            call()
            return
        self._waiting.append(call)
        if self._settle is not None:
            self._settle.stop()
        self._read()

    def saved(self, path: Path, reading: Reading) -> None:
        """The text of `reading` is in the file `path` now."""
        self.drafts.drop()
        if path != self.path:
            self.path = path
            self.drafts = DraftKeeper(path, self._say_trouble)
        self.before = reading
        self._text_changed()
        self._show_all()

    # ------------------------------------------------------------------ showing

    def _show_all(self) -> None:
        if self.is_mounted and self.loaded:
            self._show_form()

    def _show_form(self) -> None:
        states = states_of(self.groups, self.good, self.before)
        self.fields.show(states, self.reading.problems, dimmed=bool(self.reading.error))
        self.query_one("#form-head", LineView).show([self.fields.head])
        wrong = {problem.line for problem in self.reading.problems if problem.line}
        if self.reading.error_line:
            wrong.add(self.reading.error_line)
        self.yaml.mark(wrong)
        self._show_problems()
        self._show_head()

    def _show_problems(self) -> None:
        view = self.query_one("#editor-problems", LineView)
        messages = self.reading.messages()
        if not messages:
            view.show([line(("all settings are valid", "muted"))])
            return
        more = f"   and {len(messages) - 1} more: f3" if len(messages) > 1 else ""
        room = view.size.width - len(more) - 2
        view.show([line(("✗ ", "bad"), (fit(printable(messages[0]), room), "text"), (more, "bad"))])

    def _show_head(self) -> None:
        changed = sum(state.changed for state in self.fields.states.values())
        problems = len(self.reading.messages())
        path = f"{short_path(self.path.parent)}/" if self.size.width >= 100 else ""
        left = line((" Edit ", "bold accent"), (f" {path}", "muted"), (printable(self.path.name), "bold text"))
        if self.saving.copy_only:
            left = (*left, ("  sample: saves a copy", "muted"))
        right = line(
            (f"✗ {problems} problem{'s' if problems > 1 else ''}   " if problems else "", "bad"),
            (f"{changed} changed   " if changed and self.dirty else "", "text"),
            ("● not saved " if self.dirty else "saved " if self.saving.saved_path else "no changes ",
             "warn" if self.dirty else "good" if self.saving.saved_path else "muted"),
        )  # fmt: skip
        self.query_one("#editor-head", LineView).show([spread(left, right, self.size.width)])

    @on(FieldList.Moved)
    def _show_detail(self, message: FieldList.Moved) -> None:
        view = self.query_one("#form-detail", LineView)
        width, height = view.size.width, view.size.height
        row = self.fields.row
        if row is None:
            view.show([line(("No setting holds these words.", "muted"))])
        elif row.field is None:
            view.show([line((row.group.title, "bold accent")), line((printable(row.group.help), "text"))])
        elif row.field.key in self.fields.states:
            was = states_of(self.groups, self.before, self.before)[row.field.key].shown
            view.show(detail_lines(row.field, self.fields.states[row.field.key], was, width, height))

    def _say_trouble(self, text: str) -> None:
        self.app.notify(text, severity="warning", markup=False, timeout=8)

    # ------------------------------------------------------------------ changing a field

    def _changeable(self) -> bool:
        if self.reading.error:
            self._say_trouble(f"The form waits until the YAML can be read: {self.reading.error}")
            return False
        return self.loaded

    @on(FieldList.Chosen)
    def _change_chosen(self, message: FieldList.Chosen) -> None:
        self.when_read(partial(self._change, message.field))

    def _change(self, field: FormField) -> None:
        if not self._changeable():
            return
        state = self.fields.states[field.key]
        if not state.editable:
            self.to_yaml(field)
        elif field.kind == "switch" and isinstance(state.value, bool):
            self._set_field(self.reading, field, not state.value)
        else:
            inline = InlineEditor(field, state)
            place = self.fields.place_of_value(inline.rows - 1 if field.kind == "folder" else 0)
            if place is not None and not self.query(InlineEditor):
                self._origin = self.reading
                self.yaml.history.checkpoint()
                top = self.fields.region.offset - self.query_one("#form").content_region.offset
                inline.place(place.translate(top), top.y + self.fields.size.height)
                self.query_one("#form").mount(inline)

    def _set_field(self, origin: Reading, field: FormField, value: Any, written: str = "") -> None:
        try:
            text = with_field(origin, field, value, written)
        except EditError as error:
            self._say_trouble(f"{field.dotted}: {error}: change it in the YAML (f4)")
            return
        self.set_text(text, origin, means(origin.values, field, value))

    @on(InlineEditor.Typed)
    def _typed_in_form(self, message: InlineEditor.Typed) -> None:
        if self._origin is None:
            return
        if isinstance(message.typed, list):
            self._set_field(self._origin, message.field, message.typed)
        else:
            value, written = value_of_typed(message.field, message.typed)
            self._set_field(self._origin, message.field, value, written)

    @on(InlineEditor.Done)
    def _done(self, message: InlineEditor.Done) -> None:
        self.end_editing(keep=message.keep)
        if message.move:
            self.fields.action_step(message.move)

    def end_editing(self, *, keep: bool) -> None:
        """Close the inline editor, if there is one."""
        for inline in self.query(InlineEditor):
            self.set_focus(self.fields, scroll_visible=False)  # first: a focus that is removed goes just anywhere
            inline.remove()
            origin, self._origin = self._origin, None
            if not keep and origin is not None:
                self.set_text(origin.text)

    def action_to_default(self) -> None:
        """The chosen field back to its default."""
        self.when_read(partial(self._reset, at_default))

    def action_to_file(self) -> None:
        """The chosen field as the file has it."""
        self.when_read(partial(self._reset, as_in_file))

    def _reset(self, how: Callable[[Reading, Reading, FormField], str]) -> None:
        row = self.fields.row
        if row is None or row.field is None or not self._changeable():
            return
        try:
            text = how(self.reading, self.before, row.field)
        except EditError as error:
            self._say_trouble(f"{row.field.dotted}: {error}: change it in the YAML (f4)")
            return
        if text == self.text:
            self.app.bell()
        self.yaml.history.checkpoint()
        self.set_text(text)

    def action_undo(self) -> None:
        """Take back the last change, of the form or of the YAML."""
        self.end_editing(keep=True)
        self.yaml.undo()

    def action_redo(self) -> None:
        """Make the last change again."""
        self.yaml.redo()

    # ------------------------------------------------------------------ going about

    def to_yaml(self, field: FormField | None = None) -> None:
        """Go to the YAML, at a field's line."""
        self.add_class("-yaml")
        self.yaml.focus()
        if field is not None:
            keys = (field.key[:end] for end in range(len(field.key), 0, -1))
            number = next((self.reading.lines[key] for key in keys if key in self.reading.lines), 0)
            if number:
                self.yaml.go_to_line(number)

    def action_other_side(self) -> None:
        """Between the form and the YAML."""
        self.end_editing(keep=True)
        if self.yaml.has_focus:
            self.remove_class("-yaml")
            self.fields.focus()
        else:
            self.to_yaml()

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        """On a narrow screen the side with the focus is the one that is seen."""
        self.set_class(self.focused is self.yaml, "-yaml")

    def action_next_problem(self) -> None:
        """To the next field with a mistake, or the line of the YAML."""
        if self.reading.error:
            self.to_yaml()
            self.yaml.go_to_line(self.reading.error_line or 1)
            return
        fields = [field for group in self.groups for field in group.fields]
        wrong = reasons_by_field(fields, self.reading.problems)
        order = [field.key for field in fields if field.key in wrong]
        if not order:
            lines = [problem.line for problem in self.reading.problems if problem.line]
            if lines:
                self.to_yaml()
                self.yaml.go_to_line(lines[0])
            else:
                self.notify("Nothing is wrong.")
            return
        here = self.fields.row.key if self.fields.row is not None else ()
        following = order[order.index(here) + 1 :] if here in order else order
        self._filter("")
        self.fields.focus()
        self.fields.go_to_field((following or order)[0])

    def action_filter(self) -> None:
        """Let the user type what to look for."""
        field = self.query_one("#editor-filter", Input)
        field.display = True
        field.focus()

    def _filter(self, text: str) -> None:
        field = self.query_one("#editor-filter", Input)
        if not text:
            field.display = False
        if field.value != text:
            field.value = text

    @on(Input.Changed, "#editor-filter")
    def _filtered(self, event: Input.Changed) -> None:
        self.fields.words = event.value.casefold().split()
        self.fields.rebuild()
        row = self.fields.row
        if row is not None and row.field is None and self.fields.words:
            self.fields.action_step(1)

    @on(Input.Submitted, "#editor-filter")
    def _filter_kept(self, event: Input.Submitted) -> None:
        if not event.value.strip():
            self._filter("")
        self.fields.focus()

    def action_leave(self) -> None:
        """Drop the filter; without one leave, asking where something is not saved."""
        if self.query_one("#editor-filter").display:
            self.fields.focus()
            self._filter("")
        elif not self.dirty:
            self._go()
        else:
            self._ask_to_leave()

    def _ask_to_leave(self) -> None:
        from acrf_tui.screens.editor_dialogs import UnsavedDialog

        def answered(answer: str | None) -> None:
            if answer == "save":
                self.run_worker(self._save_and_go(), group="save", exclusive=True, exit_on_error=False)
            elif answer == "discard":
                self._go()

        self.app.push_screen(UnsavedDialog(f"{printable(self.name_of_file)} has changes that are not saved."), answered)

    async def _save_and_go(self) -> None:
        if await self.saving.save():
            self._go()

    def _go(self) -> None:
        self.loaded = False  # nothing is kept any more
        self.drafts.drop()
        self.dismiss(self.saving.saved_path)

    def action_save(self) -> None:
        """Save the text to its file."""
        if self.loaded:
            self.run_worker(self.saving.save(), group="save", exclusive=True, exit_on_error=False)

    def action_save_as(self) -> None:
        """Save the text to another file."""
        if self.loaded:
            self.run_worker(self.saving.save(elsewhere=True), group="save", exclusive=True, exit_on_error=False)

    async def read_now(self) -> Reading:
        """What the text means, now."""
        self.end_editing(keep=True)
        if self.reading.text != self.text:
            self.take(await asyncio.to_thread(read, self.text, self.name_of_file))
        return self.reading

    def on_worker_state_changed(self, message: Worker.StateChanged) -> None:
        """A worker that broke says so; what was typed stays."""
        if message.state == WorkerState.ERROR:
            self._say_trouble(str(message.worker.error) or "something failed")

    def action_help(self) -> None:
        """List the keys that work now."""
        from acrf_tui.screens.dialogs import HelpDialog, KeyHelp

        keys = [
            KeyHelp(self.app.get_key_display(one.binding), one.binding.description, one.tooltip, one.enabled)
            for one in self.active_bindings.values()
            if one.binding.id
        ]
        self.app.push_screen(HelpDialog([*keys, KeyHelp("ctrl+p", "", "Everything by name, and the themes", True)]))

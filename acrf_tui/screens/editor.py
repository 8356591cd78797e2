"""The config editor: a form made from the schema beside the YAML. The YAML is the truth; the form changes it."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container, Horizontal
from textual.reactive import Reactive
from textual.widget import Widget
from textual.widgets import Input, Static, TextArea
from textual.worker import Worker, WorkerState

from acrf_tui.charts.lines import LineView, line
from acrf_tui.panels.keys import KeysLine
from acrf_tui.panels.numbers import age
from acrf_tui.printable import printable, short_path
from acrf_tui.screens.calm import CalmScreen
from acrf_tui.screens.editor_changes import FormChanges
from acrf_tui.screens.editor_document import (
    Reading,
    as_in_file,
    at_default,
    next_problem,
    state_of,
    states_of,
)
from acrf_tui.screens.editor_drafts import DraftKeeper
from acrf_tui.screens.editor_fields import FormField, form_of
from acrf_tui.screens.editor_files import Draft, is_shipped
from acrf_tui.screens.editor_inline import InlineEditor
from acrf_tui.screens.editor_keys import BINDINGS
from acrf_tui.screens.editor_list import FieldList
from acrf_tui.screens.editor_rows import LEGEND, Status, detail_lines, problem_line, status_line
from acrf_tui.screens.editor_saving import Saving
from acrf_tui.screens.editor_text import LiveText, Loaded, load
from acrf_tui.screens.editor_yaml import YamlText


class EditorScreen(CalmScreen[Path | None]):
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
    VERTICAL_BREAKPOINTS = [(0, "-h-tiny"), (20, "-h-short"), (30, "-h-normal")]  # noqa: RUF012 (as above)
    focused: Reactive[Widget | None] = Reactive(None, repaint=False)  # Screen's own repaints all of it: 40 KB a tab
    BINDINGS: ClassVar[list[BindingType]] = BINDINGS

    def __init__(self, path: Path, *, base: Path | None = None) -> None:
        super().__init__()
        self.path = path
        self.base = base
        self.groups = form_of()
        self.saving = Saving(self)
        self.drafts = DraftKeeper(path, self.say)
        self.live = LiveText(self)
        self.changes = FormChanges(self)

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
                yield Container(id="inline-slot")
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

    def on_mount(self) -> None:
        self.app.theme_changed_signal.subscribe(self, lambda _: self.call_after_refresh(self.show_form))
        self.run_worker(self._load, thread=True, group="load", exit_on_error=False)

    def on_unmount(self) -> None:
        if self.live.dirty:
            self.drafts.keep_now(self.live.text)

    def on_resize(self, event: events.Resize) -> None:
        self.changes.end(keep=True)
        self.call_after_refresh(self.show_form)

    # ------------------------------------------------------------------ reading the file

    def _load(self) -> None:
        self.post_message(load(self.path, self.base))

    @on(Loaded)
    def _loaded(self, message: Loaded) -> None:
        """Show the file, and offer what was typed the last time."""
        if message.trouble and message.draft is None:
            self.app.notify(message.trouble, title="Cannot be edited", severity="error", markup=False)
            self.dismiss(None)
            return
        self.saving.opened(message.source, copy_only=is_shipped(self.path))
        self.live.begin(message.reading)
        self.yaml.load_text(self.live.text)
        self._close_what_is_plain()
        self.fields.rebuild()
        self.fields.action_step(1)
        self.show_form()
        if message.draft is not None:
            self._offer(message.draft)

    def _close_what_is_plain(self) -> None:
        states = states_of(self.groups, self.live.good, self.live.before)
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
                self.live.change(draft.text)

        ago = age(max(0.0, time.time() - draft.written))
        when = "just now" if ago == "now" else f"{ago} ago"
        said = f"{printable(self.path.name)} was edited {when} and not saved: the app ended, or the line dropped."
        since = [] if draft.is_of(self.live.text) else ["The file itself has been changed since then."]
        self.app.push_screen(DraftDialog(said, *since), answered)

    # ------------------------------------------------------------------ the text

    @on(TextArea.Changed, "#yaml")
    def _typed_in_yaml(self, event: TextArea.Changed) -> None:
        if self.live.loaded:
            self.live.change(event.text_area.text)

    @on(LiveText.Read)
    def _text_read(self, message: LiveText.Read) -> None:
        self.live.take(message.reading)

    def text_changed(self) -> None:
        """The text is another: show it, and keep it for the case that the app dies."""
        self.yaml.show_text(self.live.text)
        self.drafts.begun = self.live.before.text
        self.drafts.keep_soon(self, self.live.text if self.live.dirty else None)
        self._show_head()

    def refuse_change(self, text: str) -> None:
        """A change of the form did something else than it was to do: take it back."""
        self.changes.end(keep=True)
        self.live.change(text)
        self.say("The way this file is written cannot be changed from the form: change it in the YAML.")

    def saved(self, path: Path, reading: Reading) -> None:
        """The text of `reading` is in the file `path` now."""
        self.drafts.drop()
        if path != self.path:
            self.path = path
            self.drafts = DraftKeeper(path, self.say)
        self.live.before = reading
        self.text_changed()
        self.show_form()

    # ------------------------------------------------------------------ showing

    def show_form(self) -> None:
        """Show what the text means, at every field."""
        if not self.is_mounted or not self.live.loaded:
            return
        states = states_of(self.groups, self.live.good, self.live.before)
        self.fields.show(states, self.live.reading.problems, dimmed=bool(self.live.reading.error))
        self.query_one("#form-head", LineView).show([self.fields.head])
        wrong = {problem.line for problem in self.live.reading.problems if problem.line}
        if self.live.reading.error_line:
            wrong.add(self.live.reading.error_line)
        self.yaml.mark(wrong)
        problems = self.query_one("#editor-problems", LineView)
        problems.show([problem_line(self.live.reading.messages(), problems.size.width)])
        self._show_head()

    def _show_head(self) -> None:
        status = Status(
            short_path(self.path.parent) if self.size.width >= 100 and not is_shipped(self.path) else "",
            printable(self.path.name),
            self.saving.copy_only,
            len(self.live.reading.messages()),
            sum(state.changed for state in self.fields.states.values()),
            self.live.dirty,
            self.saving.saved_path is not None,
        )
        self.query_one("#editor-head", LineView).show([status_line(status, self.size.width)])

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
            was = state_of(row.field, self.live.before, self.live.before)
            view.show(detail_lines(row.field, self.fields.states[row.field.key], was, width, height))

    def say(self, text: str) -> None:
        """Tell what does not work."""
        self.app.notify(text, severity="warning", markup=False, timeout=8)

    # ------------------------------------------------------------------ changing a field

    @on(FieldList.Chosen)
    def _change_chosen(self, message: FieldList.Chosen) -> None:
        self.live.when_read(partial(self.changes.begin, message.field))

    @on(InlineEditor.Ready)
    def _ready(self, message: InlineEditor.Ready) -> None:
        self.fields.release(message.widget)

    @on(InlineEditor.Typed)
    def _typed_in_form(self, message: InlineEditor.Typed) -> None:
        self.changes.typed(message.field, message.typed)

    @on(InlineEditor.Done)
    def _done(self, message: InlineEditor.Done) -> None:
        self.changes.end(keep=message.keep)
        if message.move:
            self.fields.action_step(message.move)

    def action_to_default(self) -> None:
        """The chosen field back to its default."""
        self.live.when_read(partial(self.changes.reset, at_default))

    def action_to_file(self) -> None:
        """The chosen field as the file has it."""
        self.live.when_read(partial(self.changes.reset, as_in_file))

    def action_undo(self) -> None:
        """Take back the last change, of the form or of the YAML."""
        self.changes.end(keep=True)
        self.yaml.undo()

    def action_redo(self) -> None:
        """Make the last change again."""
        self.yaml.redo()

    # ------------------------------------------------------------------ going about

    def to_yaml(self, field: FormField | None = None) -> None:
        """Go to the YAML, at a field's line."""
        self.add_class("-yaml")
        self.set_focus(self.yaml)
        if field is not None:
            keys = (field.key[:end] for end in range(len(field.key), 0, -1))
            number = next((self.live.reading.lines[key] for key in keys if key in self.live.reading.lines), 0)
            if number:
                self.yaml.go_to_line(number)

    def action_other_side(self) -> None:
        """Between the form and the YAML."""
        self.changes.end(keep=True)
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
        if self.live.reading.error:
            self.to_yaml()
            self.yaml.go_to_line(self.live.reading.error_line or 1)
            return
        fields = [field for group in self.groups for field in group.fields]
        here = self.fields.row.key if self.fields.row is not None else ()
        place = next_problem(fields, self.live.reading.problems, here)
        if place is None:
            self.notify("Nothing is wrong.")
        elif isinstance(place, int):
            self.to_yaml()
            self.yaml.go_to_line(place)
        else:
            self._filter("")
            self.fields.focus()
            self.fields.go_to_field(place)

    def action_filter(self) -> None:
        """Let the user type what to look for."""
        field = self.query_one("#editor-filter", Input)
        field.display = True
        self.set_focus(field)

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
        self.set_focus(self.fields)

    def action_leave(self) -> None:
        """Drop the filter; without one leave, asking where something is not saved."""
        if self.query_one("#editor-filter").display:
            self.fields.focus()
            self._filter("")
        elif not self.live.dirty:
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

        self.app.push_screen(UnsavedDialog(f"{printable(self.path.name)} has changes that are not saved."), answered)

    async def _save_and_go(self) -> None:
        if await self.saving.save():
            self._go()

    def _go(self) -> None:
        self.live.loaded = False  # nothing is kept any more
        self.drafts.drop()
        self.dismiss(self.saving.saved_path)

    def action_save(self) -> None:
        """Save the text to its file."""
        if self.live.loaded:
            self.run_worker(self.saving.save(), group="save", exclusive=True, exit_on_error=False)

    def action_save_as(self) -> None:
        """Save the text to another file."""
        if self.live.loaded:
            self.run_worker(self.saving.save(elsewhere=True), group="save", exclusive=True, exit_on_error=False)

    def on_worker_state_changed(self, message: Worker.StateChanged) -> None:
        """A worker that broke says so; what was typed stays."""
        if message.state == WorkerState.ERROR:
            self.say(str(message.worker.error) or "something failed")

    def action_help(self) -> None:
        """List the keys that work now."""
        from acrf_tui.screens.dialogs import HelpDialog, KeyHelp

        keys = [
            KeyHelp(self.app.get_key_display(one.binding), one.binding.description, one.tooltip, one.enabled)
            for one in self.active_bindings.values()
            if one.binding.id
        ]
        self.app.push_screen(HelpDialog([*keys, KeyHelp("ctrl+p", "", "Everything by name, and the themes", True)]))

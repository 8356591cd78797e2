"""The two lists of the launchpad: a click chooses, enter or a double click acts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.style import Style
from textual.widget import Widget
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from acrf_tui.charts.lines import Line, fit
from acrf_tui.charts.palette import colour
from acrf_tui.charts.symbols import BRAILLE
from acrf_tui.printable import printable, short_path
from acrf_tui.screens.launchpad_configs import ConfigEntry, copy_config, suggested_name
from acrf_tui.screens.launchpad_runs import Columns, RunSummary, columns_for, row

ORIGINS = {"sample": "Samples", "own": "Your configs", "here": "In this folder"}
MARK = "▸"


def content_of(widget: Widget, spans: Line) -> Content:
    """Spans as Textual content without a background, so that the highlight shows through."""
    variables = widget.app.theme_variables
    parts = []
    for text, spec in spans:
        *attributes, role = spec.split()
        style = Style(foreground=colour(variables, role), bold="bold" in attributes or None)
        parts.append((text, style))
    return Content.assemble(*parts)


class PickList(OptionList):
    """Rows to choose from. The mouse chooses with one click and acts with two."""

    async def _on_click(self, event: events.Click) -> None:
        event.prevent_default()
        clicked: int | None = event.style.meta.get("option")
        if clicked is None or self.get_option_at_index(clicked).disabled:
            return
        self.highlighted = clicked
        if event.chain >= 2:
            self.action_select()


class ConfigList(PickList):
    """Configs, grouped by where they are; each by name and, where there is room, the first words of its comment."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "enter", "select", "Start", id="launchpad.start", tooltip="Start a run of the chosen config, as it stands"
        ),
        Binding(
            "n", "screen.new_run", "New run", id="launchpad.new-run",
            tooltip="Start the chosen config on your own pictures",
        ),
        Binding("e", "edit", "Edit", id="launchpad.edit", tooltip="Change the chosen config in a form"),
        Binding(
            "d", "duplicate", "Copy", id="launchpad.duplicate",
            tooltip="Make a config of your own, as a copy of the chosen one",
        ),
        Binding(
            "x", "delete", "Delete", id="launchpad.delete-config",
            tooltip="Put the chosen config of your own into the trash",
        ),
        Binding("delete", "delete", show=False),
    ]  # fmt: skip

    @dataclass
    class Edit(Message):
        """The user wants to change this config."""

        entry: ConfigEntry

    class Changed(Message):
        """There is another config now."""

    @dataclass
    class Delete(Message):
        """The user wants this config in the trash."""

        entry: ConfigEntry

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id, compact=True)
        self.entries: list[ConfigEntry] = []
        self.words = ""
        """Only configs whose name or comment holds each of these are shown."""
        self.wanted: Path | None = None
        """The config to choose as soon as it is listed."""
        self._offered: bool | None = None
        self._shown: tuple[Any, ...] = ()
        self._described = True

    def on_resize(self, event: events.Resize) -> None:
        self.show(self.entries, described=self._described)

    @property
    def chosen(self) -> ConfigEntry | None:
        """The highlighted config."""
        option = self.highlighted_option
        if option is None or option.id is None:
            return None
        return next((entry for entry in self.entries if str(entry.path) == option.id), None)

    def choose(self, path: Path) -> None:
        """Choose the config of this file, now or as soon as it is listed."""
        indices = [index for index, option in enumerate(self.options) if option.id == str(path)]
        if indices:
            self.highlighted = indices[0]
        else:
            self.words, self.wanted = "", path

    def show(self, entries: Sequence[ConfigEntry], *, described: bool) -> None:
        """Replace the rows, keeping the choice; does nothing where nothing changed."""
        width = self.scrollable_content_region.width or 30
        what = (tuple(entries), described, width, self.app.theme, self.words)
        if what == self._shown:
            return
        self._shown, self._described = what, described
        chosen = self.chosen
        self.entries = list(entries)
        options: list[Option] = []
        origin = ""
        for entry in entries:
            text = f"{entry.name} {entry.description}".casefold()
            if not all(word in text for word in self.words.casefold().split()):
                continue
            if entry.origin != origin:
                if entry.origin != "sample":
                    title = ((f"\n {ORIGINS[entry.origin]}" if described else f" {ORIGINS[entry.origin]}", "axis"),)
                    options.append(Option(content_of(self, title), disabled=True))
                origin = entry.origin
            options.append(Option(self._prompt(entry, described, width), id=str(entry.path)))
        self.set_options(options)
        wanted = str(chosen.path) if chosen else ""
        if self.wanted is not None and any(option.id == str(self.wanted) for option in options):
            wanted, self.wanted = str(self.wanted), None
        indices = [index for index, option in enumerate(options) if option.id is not None]
        if indices:
            self.highlighted = next((index for index in indices if options[index].id == wanted), indices[0])

    def watch_highlighted(self, highlighted: int | None) -> None:
        """What can be done depends on whose config it is."""
        super().watch_highlighted(highlighted)
        offered = self.chosen is not None and self.chosen.origin == "own"
        if offered != self._offered:
            self._offered = offered
            self.refresh_bindings()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Only what the user has put there can be deleted."""
        if action in ("edit", "duplicate"):
            return self.chosen is not None
        return action != "delete" or (self.chosen is not None and self.chosen.origin == "own")

    def action_edit(self) -> None:
        """Change the chosen config."""
        if self.chosen is not None:
            self.post_message(self.Edit(self.chosen))

    def action_duplicate(self) -> None:
        """Ask for a name, copy the chosen config, and choose the copy as soon as it is listed."""
        from acrf_tui.screens.launchpad_dialogs import NameDialog

        entry, taken = self.chosen, {one.name for one in self.entries if one.origin == "own"}
        if entry is None:
            return

        def answered(name: str | None) -> None:
            if name is not None:
                self.run_worker(self._copy(entry, name), exit_on_error=False)

        self.app.push_screen(NameDialog(entry.name, suggested_name(entry.name, taken), taken), answered)

    async def _copy(self, entry: ConfigEntry, name: str) -> None:
        try:
            path = await asyncio.to_thread(copy_config, entry.path, name)
        except OSError as error:
            self.notify(f"{name}: {error.strerror}", title="Not copied", severity="error", markup=False)
            return
        self.choose(path)
        self.notify(f"{short_path(path)}: e changes it", title="A config of your own", markup=False)
        self.post_message(self.Changed())

    def action_delete(self) -> None:
        """Put the chosen config into the trash."""
        if self.chosen is not None:
            self.post_message(self.Delete(self.chosen))

    def _prompt(self, entry: ConfigEntry, described: bool, width: int) -> Content:
        name = ((f" {fit(printable(entry.name), width - 2)}", "text"),)
        if not described:
            return content_of(self, name)
        text = printable(entry.audience) or "no comment at its top"
        return content_of(self, (*name, (f"\n   {fit(text, width - 4)}", "muted")))


class RunList(PickList):
    """Runs in columns, newest first."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "enter", "select", "Open", id="launchpad.open", tooltip="Watch the chosen run, or look at an ended one"
        ),
    ]

    class Rearranged(Message):
        """The columns have other widths now."""

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id, compact=True)
        self.runs: list[RunSummary] = []
        self.columns = Columns(12, 9, 0)
        self.marked: Collection[Path] = ()
        """Folders of the runs that are marked."""
        self._rows: list[tuple[Line, str]] = []

    def on_resize(self, event: events.Resize) -> None:
        self.show(self.runs)
        self.post_message(self.Rearranged())

    @property
    def chosen(self) -> RunSummary | None:
        """The highlighted run."""
        option = self.highlighted_option
        return next((run for run in self.runs if option is not None and str(run.folder) == option.id), None)

    def show(self, runs: Sequence[RunSummary]) -> None:
        """Replace what changed, keeping the choice."""
        self.runs = list(runs)
        width = self.scrollable_content_region.width or self.app.size.width - 2  # not laid out while it is hidden
        self.columns = columns_for(runs, max(20, width - 2))
        now = time.time()
        before, theme = self._rows, self.app.theme
        symbols = getattr(self.app, "symbols", BRAILLE)
        self._rows = [(self._marked(run, row(run, self.columns, now, symbols)), theme) for run in runs]
        if [option.id for option in self.options] == [str(run.folder) for run in runs]:
            for index, line in enumerate(self._rows):
                if index >= len(before) or before[index] != line:
                    self.replace_option_prompt_at_index(index, self._prompt(line[0]))
            return
        chosen = self.chosen_id
        ids = [str(run.folder) for run in runs]
        prompts = [self._prompt(line) for line, _ in self._rows]
        self.set_options([Option(prompt, id=id) for prompt, id in zip(prompts, ids, strict=True)])
        if ids:
            self.highlighted = ids.index(chosen) if chosen in ids else 0

    @property
    def chosen_id(self) -> str:
        """The folder of the highlighted run, also when it is not in the list any more."""
        option = self.highlighted_option
        return (option.id or "") if option is not None else ""

    def _marked(self, run: RunSummary, spans: Line) -> Line:
        return ((MARK, "bold accent") if run.folder in self.marked else (" ", "text"), *spans)

    def _prompt(self, line: Line) -> Content:
        return content_of(self, line)

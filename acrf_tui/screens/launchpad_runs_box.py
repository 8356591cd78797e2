"""The runs of the launchpad with their keys: what can be done with the chosen one, now."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.content import Content
from textual.message import Message
from textual.widgets import OptionList, Static
from textual.worker import Worker, WorkerState

from acrf_engine.run.folder import RunFolder
from acrf_tui.charts.lines import fit
from acrf_tui.printable import printable
from acrf_tui.screens.launchpad_lists import RunList
from acrf_tui.screens.launchpad_runs import RunSummary, head, matches
from acrf_tui.screens.launchpad_start import cancel, move_up

MOST_COMPARED = 6
OF_A_RUN = ("resume", "extend", "move_up", "cancel_waiting", "mark", "compare", "delete")
NO_RUNS = "No runs yet: enter starts the chosen config, n takes your own pictures."


class RunsBox(Container):
    """Lists runs, and asks by messages for what is to be done with them."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "r", "resume", "Resume", id="launchpad.resume",
            tooltip="Continue the chosen run from its newest good checkpoint",
        ),
        Binding("r", "extend", "Train on", id="launchpad.extend", tooltip="Train the chosen finished run further"),
        Binding("u", "move_up", "Move up", id="launchpad.move-up", tooltip="Let the chosen waiting run go earlier"),
        Binding(
            "x", "cancel_waiting", "Take out", id="launchpad.cancel",
            tooltip="Take the chosen waiting run out of the line",
        ),
        Binding("m", "mark", "Mark", id="launchpad.mark", tooltip="Mark the chosen run, to compare it with others"),
        Binding("space", "mark", show=False),
        Binding(
            "c", "compare", "Compare", id="launchpad.compare",
            tooltip="Lay the marked runs and the chosen one over one another",
        ),
        Binding("x", "delete", "Delete", id="launchpad.delete-run", tooltip="Put the chosen run into the trash"),
        Binding("delete", "delete", show=False),
    ]  # fmt: skip

    @dataclass
    class Open(Message):
        """The user wants to see this run."""

        run: RunSummary

    @dataclass
    class Resume(Message):
        """The user wants this run to go on, to `steps` in all where given."""

        run: RunSummary
        steps: int | None = None

    @dataclass
    class Delete(Message):
        """The user wants this run in the trash."""

        run: RunSummary

    @dataclass
    class Compare(Message):
        """The user wants to see these runs over one another."""

        runs: list[RunSummary]

    class Changed(Message):
        """Something was done with a run: what is listed is not true any more."""

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.border_title = "Runs"
        self.words = ""
        """Only runs whose name or state holds each of these are shown."""
        self._marked: dict[Path, None] = {}
        self._all: Sequence[RunSummary] = ()
        self._offered: tuple[object, ...] = ()
        self._hint = ""

    def compose(self) -> ComposeResult:
        yield Static("", id="runs-head", markup=False)
        yield RunList(id="runs")
        yield Static(NO_RUNS, id="no-runs", markup=False)

    @property
    def rows(self) -> RunList:
        """The rows."""
        return self.query_one(RunList)

    @property
    def chosen(self) -> RunSummary | None:
        """The highlighted run."""
        return next((found.chosen for found in self.query(RunList)), None)  # asked also before there is a list

    def show(self, runs: Sequence[RunSummary]) -> None:
        """Show these runs, as far as the filter lets them through, keeping the choice."""
        self._all = runs
        here = {run.folder for run in runs}
        self._marked = {folder: None for folder in self._marked if folder in here}
        shown = [run for run in runs if matches(run, self.words)]
        for selector in ("#runs", "#runs-head"):
            self.query_one(selector).display = bool(shown)
        nothing = self.query_one("#no-runs", Static)
        nothing.display = not shown
        text = f"No run's name or state holds “{printable(self.words)}”: escape shows all." if runs else NO_RUNS
        if not shown and str(nothing.content) != text:
            nothing.update(text)
        self.rows.marked = tuple(self._marked)
        self.rows.show(shown)
        self._say_title(len(shown))
        self.on_run_list_rearranged()
        self.offer_what_works()

    def filter(self, words: str) -> None:
        """Show only runs whose name or state holds each of the words."""
        self.words = words
        self.show(self._all)

    def _say_title(self, shown: int) -> None:
        parts = [f"{shown} of {len(self._all)}"] if self.words.strip() else []
        parts += [f"{len(self._marked)} marked"] if self._marked else []
        title = "Runs" + (f": {', '.join(parts)}" if parts else "")
        if str(self.border_title) != title:
            self.border_title = title

    def on_run_list_rearranged(self) -> None:
        """The names of the columns follow the columns."""
        names = f" {head(self.rows.columns)}"
        line_of_names = self.query_one("#runs-head", Static)
        if str(line_of_names.content) != names:
            line_of_names.update(names)

    def offer_what_works(self) -> None:
        """The keys and the hint follow the chosen run and the focus."""
        chosen = self.chosen
        offered = (chosen.state, bool(chosen.waiting), len(self._all) > 1) if chosen is not None else ()
        if offered != self._offered:  # a refresh draws all keys again
            self._offered = offered
            self.refresh_bindings()
        self._say_hint()

    def _say_hint(self) -> None:
        """What the keys do with the chosen run, in the lower edge of the list while it has the focus."""
        active = sum(run.active for run in self.rows.runs)
        text = f"{active} going on" if active else ""
        if self.rows.has_focus and self.chosen is not None:
            text = fit(printable(self.chosen.hint), max(10, self.screen.size.width - 6))
        if text != self._hint:
            self._hint = text
            self.border_subtitle = Content(text)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """A run offers what can be done with it now."""
        chosen = self.chosen
        if chosen is None:
            return action not in OF_A_RUN
        match action:
            case "resume":
                return chosen.resumable
            case "extend":
                return chosen.state == "finished"
            case "move_up" | "cancel_waiting":
                return bool(chosen.waiting)
            case "mark" | "compare":
                return len(self._all) > 1
            case "delete":
                return not chosen.active
        return True

    def on_option_list_option_highlighted(self, message: OptionList.OptionHighlighted) -> None:
        """Another run is chosen."""
        message.stop()
        self.offer_what_works()

    def on_option_list_option_selected(self, message: OptionList.OptionSelected) -> None:
        """Enter or a double click: open the run."""
        message.stop()
        if self.chosen is not None:
            self.post_message(self.Open(self.chosen))

    def action_resume(self) -> None:
        """Continue the chosen run."""
        if self.chosen is not None:
            self.post_message(self.Resume(self.chosen))

    def action_extend(self) -> None:
        """Ask how far the chosen finished run shall go, and continue it."""
        from acrf_tui.screens.launchpad_dialogs import ExtendDialog

        run = self.chosen
        if run is None:
            return

        def answered(steps: int | None) -> None:
            if steps is not None:
                self.post_message(self.Resume(run, steps))

        self.app.push_screen(ExtendDialog(printable(run.name), run.step), answered)

    def action_mark(self) -> None:
        """Mark the chosen run, or take its mark away, and go to the next."""
        run = self.chosen
        if run is None:
            return
        if run.folder in self._marked:
            del self._marked[run.folder]
        elif len(self._marked) >= MOST_COMPARED:
            self.notify(f"{MOST_COMPARED} runs at most can be compared at once", severity="warning")
            return
        else:
            self._marked[run.folder] = None
        self.show(self._all)
        if self.rows.highlighted is not None and self.rows.highlighted + 1 < self.rows.option_count:
            self.rows.action_cursor_down()

    def action_compare(self) -> None:
        """Compare the marked runs; where only one is marked, with the chosen one."""
        wanted = dict(self._marked)
        if len(wanted) < 2 and self.chosen is not None:
            wanted[self.chosen.folder] = None
        if len(wanted) < 2:
            self.notify("Mark another run with m first: a comparison needs two", severity="warning")
            return
        by_folder = {run.folder: run for run in self._all}
        self.post_message(self.Compare([by_folder[folder] for folder in wanted]))

    def action_delete(self) -> None:
        """Put the chosen run into the trash."""
        if self.chosen is not None:
            self.post_message(self.Delete(self.chosen))

    def action_move_up(self) -> None:
        """Let the chosen waiting run go before the one ahead of it."""
        self._change_line(move_up)

    def action_cancel_waiting(self) -> None:
        """Take the chosen waiting run out of the line; it can be resumed later."""
        self._change_line(cancel)

    def _change_line(self, change: Callable[[RunFolder], str]) -> None:
        run = self.chosen
        if run is not None:
            work = partial(self._change_in_thread, change, RunFolder(run.folder))
            self.run_worker(work, thread=True, group="line", exit_on_error=False)

    def _change_in_thread(self, change: Callable[[RunFolder], str], folder: RunFolder) -> None:
        told = change(folder)
        self.app.call_from_thread(self.notify, told, markup=False)
        self.post_message(self.Changed())

    def on_worker_state_changed(self, message: Worker.StateChanged) -> None:
        """Work on a run that broke says so."""
        if message.state == WorkerState.ERROR:
            reason = str(message.worker.error) or "no reason was given"
            self.notify(reason, title="Something failed", severity="error", markup=False)

"""The first screen: configs on the left, what the chosen one will do on the right, the runs below."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Horizontal
from textual.content import Content
from textual.message import Message
from textual.screen import Screen
from textual.timer import Timer
from textual.widgets import Footer, OptionList, Static
from textual.worker import Worker, WorkerState, get_current_worker

from acrf_engine import __version__
from acrf_engine.run.folder import RunFolder
from acrf_tui.charts.lines import LineView, fit, line, spread
from acrf_tui.screens.launchpad_check import Outlook, read_settings, remedy, run_check, with_report
from acrf_tui.screens.launchpad_configs import ConfigEntry, own_configs, printable, sample_configs, short_path
from acrf_tui.screens.launchpad_lists import ConfigList, RunList
from acrf_tui.screens.launchpad_outlook import OutlookView
from acrf_tui.screens.launchpad_runs import RunSummary, head, read_runs
from acrf_tui.screens.launchpad_start import DeviceChoice, Started, cancel, device_choices, move_up, resume, start

LOOK_SECONDS = 2.0
SETTLE_SECONDS = 0.12
"""How long the choice must rest before its check starts: holding a key down must not start a process for each row."""
DESCRIBED_FROM_ROWS = 30
NO_RUNS = "No runs yet: enter starts the chosen config, n takes your own pictures."


class LaunchpadScreen(Screen[None]):
    """Chooses what to train and which run to look at. Asks the app to open runs and forms, by messages."""

    CSS_PATH = "../styles/launchpad.tcss"
    AUTO_FOCUS = "#configs"
    HORIZONTAL_BREAKPOINTS = [  # noqa: RUF012 (an instance variable in Screen)
        (0, "-w-tiny"),
        (60, "-w-narrow"),
        (110, "-w-normal"),
        (170, "-w-wide"),
    ]
    VERTICAL_BREAKPOINTS = [  # noqa: RUF012 (an instance variable in Screen)
        (0, "-h-tiny"),
        (20, "-h-short"),
        (30, "-h-normal"),
        (46, "-h-tall"),
    ]
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "n", "new_run", "New run", id="launchpad.new-run",
            tooltip="Start the chosen config on your own pictures",
        ),
        Binding("e", "edit_config", "Edit", id="launchpad.edit", tooltip="Edit the chosen config"),
        Binding(
            "r", "resume", "Resume", id="launchpad.resume",
            tooltip="Continue the chosen run from its newest good checkpoint",
        ),
        Binding("r", "extend", "Train on", id="launchpad.extend", tooltip="Train the chosen finished run further"),
        Binding("u", "move_up", "Up the line", id="launchpad.move-up", tooltip="Let the chosen waiting run go earlier"),
        Binding(
            "x", "cancel_waiting", "Take out", id="launchpad.cancel",
            tooltip="Take the chosen waiting run out of the line",
        ),
        Binding(
            "d", "demo", "Demo", id="launchpad.demo", show=False,
            tooltip="Start the demo: built-in model and pictures",
        ),
        Binding("tab", "app.focus_next", "Next list", id="launchpad.next", tooltip="Go between configs and runs"),
        Binding("question_mark", "help", "Help", id="app.help", tooltip="Show the keys that work now"),
        Binding("q", "app.quit", "Quit", id="app.quit", tooltip="Close the app; runs go on"),
    ]  # fmt: skip

    @dataclass
    class Looked(Message):
        """The runs and the user's configs, as they are now."""

        runs: list[RunSummary]
        configs: list[ConfigEntry]

    @dataclass
    class Examined(Message):
        """What is known of a config now; `version` is its file's change time."""

        entry: ConfigEntry
        version: int
        outlook: Outlook

    @dataclass
    class StartAnswered(Message):
        """A start or a resume came back; `entry` is the config it was of, if any."""

        started: Started
        entry: ConfigEntry | None

    @dataclass
    class DeviceAsked(Message):
        """A start needs an answer first: on which device, or whether to wait for one."""

        entry: ConfigEntry
        choices: list[DeviceChoice]

    @dataclass
    class OpenRun(Message):
        """The user wants to see this run."""

        folder: RunFolder

    @dataclass
    class NewRun(Message):
        """The user wants to start a config with own data."""

        entry: ConfigEntry

    @dataclass
    class EditConfig(Message):
        """The user wants to edit a config."""

        entry: ConfigEntry

    def __init__(self, runs_dir: Path) -> None:
        super().__init__()
        self.runs_dir = runs_dir
        self.samples: list[ConfigEntry] = []
        self.own: list[ConfigEntry] = []
        self.starting = ""
        self._outlooks: dict[Path, tuple[int, Outlook]] = {}
        self._settle: Timer | None = None
        self._looking = False
        self._examining: Path | None = None
        self._chosen: tuple[object, ...] = ()
        self._hint = ""
        self._failure: tuple[Path | None, str] = (None, "")
        """The config that did not start, and why."""

    # ------------------------------------------------------------------ building

    def compose(self) -> ComposeResult:
        yield LineView(id="launchpad-head")
        with Horizontal(id="upper"):
            configs = ConfigList(id="configs")
            configs.border_title = "Configs"
            yield configs
            yield OutlookView(id="outlook")
        with Container(id="runs-box") as box:
            box.border_title = "Runs"
            yield Static("", id="runs-head", markup=False)
            yield RunList(id="runs")
            yield Static(NO_RUNS, id="no-runs", markup=False)
        yield Static("This terminal is too small: 60x20 is the least. Runs are not affected.", id="launchpad-too-small")
        yield Footer(compact=True, show_command_palette=False)

    def on_mount(self) -> None:
        self.samples = sample_configs()
        self._show_configs()
        self._show_runs([])
        self.app.theme_changed_signal.subscribe(self, lambda _: self.call_after_refresh(self._show_all))
        self.set_interval(LOOK_SECONDS, self._look)
        self.call_after_refresh(self._look)

    def on_resize(self, event: events.Resize) -> None:
        self.query_one(Footer).compact = event.size.width < 100
        self.call_after_refresh(self._show_all)

    def on_screen_resume(self) -> None:
        """Back from a run or a form: what is listed may have changed."""
        self._look()

    def _show_all(self) -> None:
        if not self.is_mounted:
            return
        title = line((f" acrf-tui {__version__}", "bold accent"), ("   AC-RF LoRA training for Z-Image-Turbo", "muted"))
        where = line((f"runs in {short_path(self.runs_dir)} ", "muted"))
        self.query_one("#launchpad-head", LineView).show([spread(title, where, self.size.width)])
        self._show_configs()
        self._show_runs(self.query_one(RunList).runs)

    def _show_configs(self) -> None:
        described = self.size.height >= DESCRIBED_FROM_ROWS
        self.query_one(ConfigList).show([*self.samples, *self.own], described=described)

    def _show_runs(self, runs: Sequence[RunSummary]) -> None:
        runs_list = self.query_one(RunList)
        had_focus = runs_list.has_focus
        for selector in ("#runs", "#runs-head"):
            self.query_one(selector).display = bool(runs)
        self.query_one("#no-runs").display = not runs
        runs_list.show(runs)
        self.on_run_list_rearranged()
        if had_focus and not runs:
            self.query_one(ConfigList).focus()
        self._offer_what_works()

    def _offer_what_works(self) -> None:
        chosen = self.query_one(RunList).chosen
        offered = (chosen.state, bool(chosen.waiting)) if chosen is not None else ()
        if offered != self._chosen:  # a refresh draws the whole footer again
            self._chosen = offered
            self.refresh_bindings()
        self._say_hint()

    def _say_hint(self) -> None:
        """What the keys do with the chosen run, in the lower edge of the list while it has the focus."""
        runs_list, box = self.query_one(RunList), self.query_one("#runs-box")
        active = sum(run.active for run in runs_list.runs)
        text = f"{active} going on" if active else ""
        if runs_list.has_focus and runs_list.chosen is not None:
            text = fit(printable(runs_list.chosen.hint), max(10, self.size.width - 6))
        if text != self._hint:
            self._hint = text
            box.border_subtitle = Content(text)

    def on_descendant_focus(self) -> None:
        """The other list has the focus now."""
        self._offer_what_works()

    def on_run_list_rearranged(self) -> None:
        """The names of the columns follow the columns."""
        names = f" {head(self.query_one(RunList).columns)}"
        line_of_names = self.query_one("#runs-head", Static)
        if str(line_of_names.content) != names:
            line_of_names.update(names)

    # ------------------------------------------------------------------ looking at files, off the app's thread

    def _look(self) -> None:
        if self._looking or self.app.screen is not self:  # is_current is true below another screen, too
            return
        self._looking = True
        self.run_worker(self._read, thread=True, group="look", exit_on_error=False)
        self._examine_chosen()

    def _read(self) -> None:
        try:
            configs = own_configs(Path.cwd())
        except OSError:  # the current folder was removed
            configs = []
        self.post_message(self.Looked(read_runs(self.runs_dir), configs))
        importlib.import_module("acrf_tui.screens.dashboard")  # ready before the first run is opened

    def on_launchpad_screen_looked(self, message: Looked) -> None:
        """Show what is there now."""
        self._looking = False
        self.own = message.configs
        self._show_configs()
        self._show_runs(message.runs)

    def on_option_list_option_highlighted(self, message: OptionList.OptionHighlighted) -> None:
        """Another config or run is chosen."""
        if message.option_list.id == "configs":
            self._failure = (None, "")
            self._examine_chosen()
        else:
            self._offer_what_works()

    def _examine_chosen(self) -> None:
        """Show what is known of the chosen config, and find out the rest."""
        entry = self.query_one(ConfigList).chosen
        if entry is None:
            return
        version, outlook = self._outlooks.get(entry.path, (-1, Outlook(checking=True)))
        failed, error = self._failure
        if failed == entry.path:
            outlook = replace(outlook, error=error, advice="Press enter to try again.", checking=False)
        self.query_one(OutlookView).show(entry, outlook)
        if version == _version(entry.path) or self._examining == entry.path:
            return
        self._examining = entry.path
        if self._settle is not None:
            self._settle.stop()
        self._settle = self.set_timer(SETTLE_SECONDS, partial(self._start_examining, entry))

    def _start_examining(self, entry: ConfigEntry) -> None:
        self.run_worker(
            partial(self._examine, entry), thread=True, group="examine", exclusive=True, exit_on_error=False
        )

    def _examine(self, entry: ConfigEntry) -> None:
        worker = get_current_worker()
        version = _version(entry.path)
        outlook = read_settings(entry.path)
        self.post_message(self.Examined(entry, version, outlook))
        if outlook.checking:
            result = run_check(entry.path, self.runs_dir, lambda: worker.is_cancelled)
            if result is not None:
                self.post_message(self.Examined(entry, version, with_report(outlook, result)))

    def on_launchpad_screen_examined(self, message: Examined) -> None:
        """More is known of a config; it is shown if that is still the chosen one."""
        if not message.outlook.checking:
            self._outlooks[message.entry.path] = (message.version, message.outlook)
            if self._examining == message.entry.path:
                self._examining = None
        chosen = self.query_one(ConfigList).chosen
        if chosen is not None and chosen.path == message.entry.path != self._failure[0]:
            self.query_one(OutlookView).show(chosen, message.outlook)

    def on_worker_state_changed(self, message: Worker.StateChanged) -> None:
        """A worker that broke says so; the screen stays."""
        if message.state == WorkerState.ERROR:
            self._looking = False
            self._examining = None
            self._set_starting("")
            self.notify(str(message.worker.error) or "no reason was given", title="Something failed", severity="error")

    # ------------------------------------------------------------------ acting

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """A run offers what can be done with it now."""
        if action not in ("resume", "extend", "move_up", "cancel_waiting"):
            return True
        runs = self.query(RunList).first() if self.query(RunList) else None  # asked also before there are lists
        if runs is None or not runs.has_focus or runs.chosen is None:
            return False
        match action:
            case "resume":
                return runs.chosen.resumable
            case "extend":
                return runs.chosen.state == "finished"
            case _:
                return bool(runs.chosen.waiting)

    def on_option_list_option_selected(self, message: OptionList.OptionSelected) -> None:
        """Enter or a double click: start the config, or open the run."""
        if message.option_list.id == "configs":
            entry = self.query_one(ConfigList).chosen
            if entry is not None:
                self._start(entry)
        else:
            run = self.query_one(RunList).chosen
            if run is not None:
                self._open(run)

    def _open(self, run: RunSummary) -> None:
        if run.state == "unreadable":
            self.notify(run.error, title="This run cannot be read", severity="error", markup=False)
            return
        self.post_message(self.OpenRun(RunFolder(run.folder)))

    def _start(self, entry: ConfigEntry) -> None:
        _, outlook = self._outlooks.get(entry.path, (0, Outlook()))
        if outlook.error:
            self.notify(remedy(outlook.error), title="This config cannot run as it stands", severity="warning")
            return
        if not self.starting:
            self._failure = (None, "")
            self._set_starting(entry.name)
            work = partial(self._start_in_thread, entry)
            self.run_worker(work, thread=True, group="start", exit_on_error=False)

    def _start_in_thread(self, entry: ConfigEntry, choice: DeviceChoice | None = None) -> None:
        if choice is None and (choices := device_choices(entry.path)):
            self.post_message(self.DeviceAsked(entry, choices))
            return
        overrides, when_busy = (choice.overrides, choice.when_busy) if choice else ((), "")
        self.post_message(self.StartAnswered(start(self.runs_dir, entry.path, overrides, "", when_busy), entry))

    def on_launchpad_screen_device_asked(self, message: DeviceAsked) -> None:
        """Ask where to train, then start."""
        from acrf_tui.screens.launchpad_dialogs import DeviceDialog

        def answered(choice: DeviceChoice | None) -> None:
            if choice is None:
                self._set_starting("")
                return
            work = partial(self._start_in_thread, message.entry, choice)
            self.run_worker(work, thread=True, group="start", exit_on_error=False)

        self.app.push_screen(DeviceDialog(message.entry.name, message.choices), answered)

    def _resume_in_thread(self, folder: RunFolder, steps: int | None = None) -> None:
        self.post_message(self.StartAnswered(resume(folder, steps), None))

    def on_launchpad_screen_start_answered(self, message: StartAnswered) -> None:
        """Open the run that was started, or say why there is none."""
        self._set_starting("")
        started = message.started
        if started.folder is not None:
            self.post_message(self.OpenRun(started.folder))
        elif message.entry is not None:
            self._failure = (message.entry.path, started.error)
            self.notify(started.error, title="The run did not start", severity="error", markup=False)
        else:
            self.notify(started.error, title="The run did not resume", severity="error", markup=False)
        self._look()

    def _set_starting(self, name: str) -> None:
        self.starting = name
        self.query_one(ConfigList).border_subtitle = f"starting {name} …" if name else ""

    def action_new_run(self) -> None:
        """Ask for pictures, model and the like, then start."""
        entry = self.query_one(ConfigList).chosen
        if entry is not None:
            self.post_message(self.NewRun(entry))

    def action_edit_config(self) -> None:
        """Edit the chosen config."""
        entry = self.query_one(ConfigList).chosen
        if entry is not None:
            self.post_message(self.EditConfig(entry))

    def action_resume(self) -> None:
        """Continue the chosen run."""
        run = self.query_one(RunList).chosen
        if run is not None:
            self._resume(run)

    def _resume(self, run: RunSummary, steps: int | None = None) -> None:
        if not self.starting:
            self._set_starting(run.name)
            work = partial(self._resume_in_thread, RunFolder(run.folder), steps)
            self.run_worker(work, thread=True, group="start", exit_on_error=False)

    def action_extend(self) -> None:
        """Ask how far the chosen finished run shall go, and continue it."""
        from acrf_tui.screens.launchpad_dialogs import ExtendDialog

        run = self.query_one(RunList).chosen
        if run is None:
            return

        def answered(steps: int | None) -> None:
            if steps is not None:
                self._resume(run, steps)

        self.app.push_screen(ExtendDialog(printable(run.name), run.step), answered)

    def action_move_up(self) -> None:
        """Let the chosen waiting run go before the one ahead of it."""
        self._change_line(move_up)

    def action_cancel_waiting(self) -> None:
        """Take the chosen waiting run out of the line; it can be resumed later."""
        self._change_line(cancel)

    def _change_line(self, change: Callable[[RunFolder], str]) -> None:
        run = self.query_one(RunList).chosen
        if run is not None:
            work = partial(self._change_in_thread, change, RunFolder(run.folder))
            self.run_worker(work, thread=True, group="line", exit_on_error=False)

    def _change_in_thread(self, change: Callable[[RunFolder], str], folder: RunFolder) -> None:
        told = change(folder)
        self.app.call_from_thread(self.notify, told, markup=False)
        self.app.call_from_thread(self._look)

    def action_demo(self) -> None:
        """Start the demo, whatever is chosen."""
        demo = next((entry for entry in self.samples if entry.name == "demo"), None)
        if demo is not None:
            self._start(demo)

    def action_help(self) -> None:
        """List the keys that work now."""
        from acrf_tui.screens.dialogs import HelpDialog, KeyHelp

        keys = [
            KeyHelp(self.app.get_key_display(one.binding), one.binding.description, one.tooltip, one.enabled)
            for one in self.active_bindings.values()
            if one.binding.id
        ]
        self.app.push_screen(HelpDialog([*keys, KeyHelp("ctrl+p", "", "Everything by name, and the themes", True)]))


def _version(path: Path) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0

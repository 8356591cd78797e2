"""The first screen: configs on the left, what the chosen one will do on the right, the runs below."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.message import Message
from textual.screen import Screen
from textual.widgets import Footer, OptionList, Static
from textual.worker import Worker, WorkerState

from acrf_engine import __version__
from acrf_engine.run.folder import RunFolder
from acrf_tui.charts.lines import LineView, line, spread
from acrf_tui.screens.launchpad_check import remedy
from acrf_tui.screens.launchpad_configs import ConfigEntry, own_configs, sample_configs, short_path
from acrf_tui.screens.launchpad_examine import Examiner
from acrf_tui.screens.launchpad_lists import ConfigList
from acrf_tui.screens.launchpad_runs import RunSummary, read_runs
from acrf_tui.screens.launchpad_runs_box import RunsBox
from acrf_tui.screens.launchpad_start import DeviceChoice, Started, device_choices, resume, start

LOOK_SECONDS = 2.0
DESCRIBED_FROM_ROWS = 30


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

    def __init__(self, runs_dir: Path) -> None:
        super().__init__()
        self.runs_dir = runs_dir
        self.samples: list[ConfigEntry] = []
        self.own: list[ConfigEntry] = []
        self.starting = ""
        self._looking = False

    # ------------------------------------------------------------------ building

    @property
    def examiner(self) -> Examiner:
        """What the chosen config will do."""
        return self.query_one(Examiner)

    @property
    def runs_box(self) -> RunsBox:
        """The runs."""
        return self.query_one(RunsBox)

    def compose(self) -> ComposeResult:
        yield LineView(id="launchpad-head")
        with Horizontal(id="upper"):
            configs = ConfigList(id="configs")
            configs.border_title = "Configs"
            yield configs
            yield Examiner(self.runs_dir, id="outlook")
        yield RunsBox(id="runs-box")
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
        self._show_runs(self.runs_box.rows.runs)

    def _show_configs(self) -> None:
        described = self.size.height >= DESCRIBED_FROM_ROWS
        self.query_one(ConfigList).show([*self.samples, *self.own], described=described)

    def _show_runs(self, runs: Sequence[RunSummary]) -> None:
        had_focus = self.runs_box.rows.has_focus
        self.runs_box.show(runs)
        if had_focus and not runs:
            self.query_one(ConfigList).focus()

    def on_descendant_focus(self) -> None:
        """The other list has the focus now."""
        self.runs_box.offer_what_works()

    # ------------------------------------------------------------------ looking at files, off the app's thread

    def _look(self) -> None:
        if self._looking or not self.is_current:
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
        """Another config is chosen."""
        self.examiner.fail(None)
        self._examine_chosen()

    def _examine_chosen(self) -> None:
        self.examiner.examine(self.query_one(ConfigList).chosen)

    def on_worker_state_changed(self, message: Worker.StateChanged) -> None:
        """A worker that broke says so; the screen stays."""
        if message.state == WorkerState.ERROR:
            self._looking = False
            self._set_starting("")
            self.notify(str(message.worker.error) or "no reason was given", title="Something failed", severity="error")

    # ------------------------------------------------------------------ acting

    def on_option_list_option_selected(self, message: OptionList.OptionSelected) -> None:
        """Enter or a double click: start the config."""
        entry = self.query_one(ConfigList).chosen
        if entry is not None:
            self._start(entry)

    def on_runs_box_open(self, message: RunsBox.Open) -> None:
        """Enter or a double click: open the run."""
        run = message.run
        if run.state == "unreadable":
            self.notify(run.error, title="This run cannot be read", severity="error", markup=False)
            return
        self.post_message(self.OpenRun(RunFolder(run.folder)))

    def _start(self, entry: ConfigEntry) -> None:
        if error := self.examiner.error_of(entry):
            self.notify(remedy(error), title="This config cannot run as it stands", severity="warning")
            return
        if not self.starting:
            self.examiner.fail(None)
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

    def on_runs_box_resume(self, message: RunsBox.Resume) -> None:
        """Continue a run."""
        if not self.starting:
            self._set_starting(message.run.name)
            work = partial(self._resume_in_thread, RunFolder(message.run.folder), message.steps)
            self.run_worker(work, thread=True, group="start", exit_on_error=False)

    def on_runs_box_changed(self) -> None:
        """Look at the runs again."""
        self._look()

    def _resume_in_thread(self, folder: RunFolder, steps: int | None = None) -> None:
        self.post_message(self.StartAnswered(resume(folder, steps), None))

    def on_launchpad_screen_start_answered(self, message: StartAnswered) -> None:
        """Open the run that was started, or say why there is none."""
        self._set_starting("")
        started = message.started
        if started.folder is not None:
            self.post_message(self.OpenRun(started.folder))
        elif message.entry is not None:
            self.examiner.fail(message.entry, started.error)
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

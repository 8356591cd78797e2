"""The first screen: configs on the left, what the chosen one will do on the right, the runs below."""

from __future__ import annotations

import importlib
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.content import Content
from textual.message import Message
from textual.widgets import OptionList, Static
from textual.worker import Worker, WorkerState

from acrf_engine import __version__
from acrf_engine.run.folder import RunFolder
from acrf_engine.run.trash import trash_path, trash_run
from acrf_tui.charts.lines import LineView, line, spread
from acrf_tui.panels.keys import KeysLine
from acrf_tui.printable import printable, short_path
from acrf_tui.screens.calm import CalmScreen
from acrf_tui.screens.launchpad_configs import ConfigEntry, own_configs, sample_configs
from acrf_tui.screens.launchpad_examine import Examiner
from acrf_tui.screens.launchpad_lists import ConfigList
from acrf_tui.screens.launchpad_runs import CurveCache, RunSummary, read_runs
from acrf_tui.screens.launchpad_runs_box import RunsBox
from acrf_tui.screens.launchpad_starting import StartingScreen
from acrf_tui.screens.launchpad_trash import TrashingScreen

LOOK_SECONDS = 2.0
DESCRIBED_FROM_ROWS = 30


class LaunchpadScreen(CalmScreen[None], StartingScreen, TrashingScreen):
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
            "n", "new_run", "New run", id="launchpad.new-run", show=False,
            tooltip="Start the chosen config on your own pictures",
        ),
        Binding(
            "D", "demo", "Demo", id="launchpad.demo", show=False,
            tooltip="Start the demo: built-in model and pictures",
        ),
        Binding("slash", "filter", "Filter", id="launchpad.filter", tooltip="Show only what holds some words"),
        Binding("escape", "drop_filter", "Show all", id="launchpad.drop-filter", tooltip="Drop the filter"),
        Binding("tab", "next_list", "Lists", id="launchpad.next", tooltip="Go between configs and runs"),
        Binding("question_mark", "help", "Help", id="app.help", tooltip="Show the keys that work now"),
        Binding("q", "app.quit", "Quit", id="app.quit", tooltip="Close the app; runs go on"),
    ]  # fmt: skip

    @dataclass
    class Looked(Message):
        """The runs and the user's configs, as they are now."""

        runs: list[RunSummary]
        configs: list[ConfigEntry]

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
        """The user wants to change a config."""

        entry: ConfigEntry

    @dataclass
    class Compare(Message):
        """The user wants to see these runs over one another."""

        folders: list[RunFolder]

    def __init__(self, runs_dir: Path) -> None:
        super().__init__()
        self.runs_dir = runs_dir
        self.samples: list[ConfigEntry] = []
        self.own: list[ConfigEntry] = []
        self._looking = False
        self._curves = CurveCache()

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
        yield KeysLine(id="launchpad-keys")

    def on_mount(self) -> None:
        self.samples = sample_configs()
        self._show_configs()
        self._show_runs([])
        self.app.theme_changed_signal.subscribe(self, lambda _: self.call_after_refresh(self._show_all))
        self.set_interval(LOOK_SECONDS, self.look)
        self.call_after_refresh(self.look)

    def on_resize(self, event: events.Resize) -> None:
        self.call_after_refresh(self._show_all)

    def on_screen_resume(self) -> None:
        """Back from a run or a form: what is listed may have changed."""
        self.look()

    def _show_all(self) -> None:
        if not self.is_mounted:
            return
        title = line((f" acrf-tui {__version__}", "bold accent"), ("   AC-RF LoRA training for Z-Image-Turbo", "muted"))
        where = line((f"runs in {short_path(self.runs_dir)} ", "muted"))
        self.query_one("#launchpad-head", LineView).show([spread(title, where, self.size.width)])
        self._show_configs()
        self.runs_box.filter(self.runs_box.words)

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

    def look(self) -> None:
        """Read what is there now; a look that is under way counts."""
        if self._looking or self.app.screen is not self:  # behind another screen each change repaints all of that
            return
        self._looking = True
        self.run_worker(self._read, thread=True, group="look", exit_on_error=False)
        self._examine_chosen()

    def _read(self) -> None:
        try:
            configs = own_configs(Path.cwd())
        except OSError:  # the current folder was removed
            configs = []
        self.post_message(self.Looked(read_runs(self.runs_dir, self._curves), configs))
        importlib.import_module("acrf_tui.screens.dashboard")  # ready before the first run is opened

    def on_launchpad_screen_looked(self, message: Looked) -> None:
        """Show what is there now."""
        self._looking = False
        self.own = message.configs
        self._show_configs()
        self._show_runs(message.runs)

    def on_option_list_option_highlighted(self, message: OptionList.OptionHighlighted) -> None:
        """Another config is chosen."""
        self.failed(None)
        self._examine_chosen()

    def _examine_chosen(self) -> None:
        self.examiner.examine(self.query_one(ConfigList).chosen)

    def on_worker_state_changed(self, message: Worker.StateChanged) -> None:
        """A worker that broke says so; the screen stays."""
        if message.state == WorkerState.ERROR:
            self._looking = False
            self.set_starting("")
            self.notify(str(message.worker.error) or "no reason was given", title="Something failed", severity="error")

    # ------------------------------------------------------------------ acting

    def on_option_list_option_selected(self, message: OptionList.OptionSelected) -> None:
        """Enter or a double click: start the config."""
        entry = self.query_one(ConfigList).chosen
        if entry is not None:
            self.start_config(entry)

    def on_runs_box_open(self, message: RunsBox.Open) -> None:
        """Enter or a double click: open the run."""
        run = message.run
        if run.state == "unreadable":
            self.notify(run.error, title="This run cannot be read", severity="error", markup=False)
            return
        self.post_message(self.OpenRun(RunFolder(run.folder)))

    def on_runs_box_changed(self) -> None:
        """Look at the runs again."""
        self.look()

    def on_runs_box_delete(self, message: RunsBox.Delete) -> None:
        """Put a run into the trash."""
        folder = RunFolder(message.run.folder)
        self.delete(folder.path, partial(trash_run, folder))

    def on_runs_box_compare(self, message: RunsBox.Compare) -> None:
        """Show runs over one another."""
        self.post_message(self.Compare([RunFolder(run.folder) for run in message.runs]))

    def on_config_list_edit(self, message: ConfigList.Edit) -> None:
        """Change a config."""
        self.post_message(self.EditConfig(message.entry))

    def choose_config(self, path: Path | None) -> None:
        """Choose a config that was saved: what is started next is what was just edited."""
        if path is not None:
            self.query_one(ConfigList).choose(path)

    def on_config_list_delete(self, message: ConfigList.Delete) -> None:
        """Put a config into the trash."""
        self.delete(message.entry.path, partial(trash_path, message.entry.path))

    def on_config_list_changed(self) -> None:
        """Look at the configs again."""
        self.look()

    def action_next_list(self) -> None:
        """From the configs to the runs, then to what the chosen config will do where that scrolls."""
        places = [self.query_one(ConfigList), self.runs_box.rows, self.examiner]
        there = [place for place in places if place.focusable]
        index = there.index(self.focused) + 1 if self.focused in there else 0
        if there:
            self.set_focus(there[index % len(there)])

    def action_filter(self) -> None:
        """Let the user type which runs, or which configs, to show."""
        from acrf_tui.screens.launchpad_filter import FilterLine

        runs = self.runs_box.rows.has_focus or not self.query_one(ConfigList).has_focus
        words = self.runs_box.words if runs else self.query_one(ConfigList).words
        if not self.query(FilterLine):
            self.mount(FilterLine(runs, words), before="#launchpad-keys")

    def filter(self, words: str, *, runs: bool) -> None:
        """Show only the runs, or the configs, that hold these words."""
        if runs:
            self.runs_box.filter(words)
        else:
            self.query_one(ConfigList).words = words
            self._show_configs()
        self.refresh_bindings()

    def action_drop_filter(self) -> None:
        """Show everything again."""
        for runs in (True, False):
            self.filter("", runs=runs)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """What was not deleted cannot be restored; what is not filtered shows all."""
        if action == "restore":
            return self.may_restore()
        if action == "filter":
            return self.focused is None or self.focused.id != "launchpad-filter"
        if action == "drop_filter":
            return any(box.words.strip() for box in (*self.query(RunsBox), *self.query(ConfigList)))
        return True

    def error_of(self, entry: ConfigEntry) -> str:
        return self.examiner.error_of(entry)

    def failed(self, entry: ConfigEntry | None, error: str = "") -> None:
        self.examiner.fail(entry, error)

    def open_run(self, folder: RunFolder) -> None:
        self.post_message(self.OpenRun(folder))

    def set_starting(self, name: str) -> None:
        super().set_starting(name)
        self.query_one(ConfigList).border_subtitle = Content(f"starting {printable(name)} …" if name else "")

    def action_new_run(self) -> None:
        """Ask for pictures, model and the like, then start."""
        entry = self.query_one(ConfigList).chosen
        if entry is not None:
            self.post_message(self.NewRun(entry))

    def action_demo(self) -> None:
        """Start the demo, whatever is chosen."""
        demo = next((entry for entry in self.samples if entry.name == "demo"), None)
        if demo is not None:
            self.start_config(demo)

    def text_to_copy(self) -> str:
        """The folder of the chosen run, or the command that starts the chosen config."""
        box, entry = self.query_one(RunsBox), self.query_one(ConfigList).chosen
        if box.rows.has_focus and box.chosen is not None:
            return str(box.chosen.folder)
        return f"acrf-tui train {shlex.quote(str(entry.path))}" if entry is not None else ""

    def action_help(self) -> None:
        """List the keys that work now."""
        from acrf_tui.screens.dialogs import HelpDialog
        from acrf_tui.screens.live_keys import live_keys

        self.app.push_screen(HelpDialog(live_keys(self)))

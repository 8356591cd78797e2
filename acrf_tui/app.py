"""The app: it wires screens, themes, signals and the terminal, and holds nothing else."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Static

from acrf_engine import __version__
from acrf_engine.run.folder import RunError, RunFolder
from acrf_tui import collector
from acrf_tui.manners import MannerlyApp
from acrf_tui.memory import remembered
from acrf_tui.terminal import (
    background_is_light,
    choose_colors,
    fewer_frames,
    first_environment,
    leave_on_signals,
    over_ssh,
    symbols_name,
    terminal_modes,
)

if TYPE_CHECKING:
    from textual.command import Provider

    from acrf_tui.screens.launchpad import LaunchpadScreen
    from acrf_tui.theme_keeper import ThemeKeeper

__all__ = ["AcrfApp", "AppOptions", "run_app"]

SSH_FRAMES = 15
"""Most repaints a second over SSH."""

SETTLED_S = 3.0
"""After so many seconds the first screen is drawn, also of a long run on a busy machine."""


@dataclass
class AppOptions:
    """What the command line asks of the app. `color`: auto, 16, 256, truecolor or none; `symbols` None: as set."""

    runs_dir: Path
    slow: bool = False
    theme: str | None = None
    mouse: bool = True
    color: str = "auto"
    observe: bool = False
    symbols: str | None = None


def run_app(options: AppOptions, folder: RunFolder | None) -> int:
    """Run the app until the user leaves: at the launchpad, or on the dashboard of `folder`. Returns the exit status."""
    colorless = choose_colors(options.color)
    app = AcrfApp(options, folder, colorless=colorless)
    status = app.run(mouse=options.mouse)
    _say_what_goes_on(app.opened)
    return app.return_code or 0 if status is None else status


def _say_what_goes_on(folders: list[RunFolder]) -> None:
    # After SIGHUP there is no terminal to say it to.
    with contextlib.suppress(OSError):
        for folder in folders:
            with contextlib.suppress(RunError):
                status = folder.read_status()
                if status.state in ("stopping", "stopped"):
                    print(f"run {folder.name} is stopped, its checkpoint saved: acrf-tui resume {folder.name}")
                elif status.active:
                    print(f"run {folder.name} goes on: acrf-tui attach {folder.name}")
        sys.stdout.flush()


def _actions_provider() -> type[Provider]:
    from acrf_tui.commands import ActionsProvider

    return ActionsProvider


class AcrfApp(MannerlyApp):
    """Screens come and go; the training never notices."""

    TITLE = "acrf-tui"
    CSS_PATH = "styles/app.tcss"
    ENABLE_COMMAND_PALETTE = True
    COMMANDS: ClassVar[set[type[Provider] | Callable[[], type[Provider]]]] = {_actions_provider}

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "j,ctrl+o", "jump", "Jump", show=False, id="app.jump", tooltip="Jump to a panel, list or field by a letter"
        ),
        Binding(
            "y", "copy", "Copy", show=False, id="app.copy", tooltip="Copy the selection, or what goes on from here"
        ),
        Binding(
            "f12,P", "picture", "Picture", show=False, id="app.picture", tooltip="Save a picture of the screen (SVG)"
        ),
        Binding("T", "change_theme", "Theme", show=False, id="app.theme", tooltip="Choose a theme, seeing each"),
    ]

    def __init__(self, options: AppOptions, folder: RunFolder | None = None, *, colorless: bool = False) -> None:
        # Without colours Textual's filter for ANSI themes is the one that copes with cells of no style.
        super().__init__(ansi_color=True if colorless else None)
        self.options = options
        self.folder = folder
        self.colorless = colorless
        self._terminal_modes = terminal_modes()
        self.opened: list[RunFolder] = []
        self.launchpad: LaunchpadScreen | None = None
        self.slow = options.slow
        self.sparing = options.slow
        self._keeper: ThemeKeeper | None = None
        if not remembered().get("dark", not background_is_light(os.environ)):
            self.theme = "textual-light"  # until our themes are read: a bright terminal must not flash dark

    def compose(self) -> ComposeResult:
        yield Static(f" acrf-tui {__version__}", id="splash")

    def on_mount(self) -> None:
        leave_on_signals(self._leave, self._terminal_modes)
        self.call_after_refresh(self._begin)
        self.set_timer(SETTLED_S, collector.release)

    def _begin(self) -> None:
        """After the first paint: read settings, keys and themes, and open the first screen."""
        from acrf_tui.theme_keeper import ThemeKeeper

        wrong = self._take_settings()
        self._keeper = ThemeKeeper(self)
        bad_themes = self._keeper.begin()
        if self.folder is not None:
            self.open_run(self.folder)
        else:
            from acrf_tui.screens.launchpad import LaunchpadScreen

            self.launchpad = LaunchpadScreen(self.options.runs_dir)
            self.push_screen(self.launchpad)
        for title, errors in (("Settings", wrong), ("Themes", bad_themes)):
            if errors:
                text = "\n".join(errors).replace(f"{Path.home()}/", "~/")
                self.notify(text, title=title, severity="warning", timeout=12, markup=False)

    def _take_settings(self) -> list[str]:
        from acrf_tui.charts.symbols import SYMBOL_SETS
        from acrf_tui.settings import keys_file, read_settings, settings_file

        self.settings, wrong = read_settings(settings_file())
        if os.path.lexists(keys_file()):
            from acrf_tui.keymap import read_keys

            keymap, bad_keys = read_keys(keys_file())
            wrong += bad_keys
            self.set_keymap(keymap)
        self.symbols = SYMBOL_SETS[symbols_name(self.options.symbols or self.settings.symbols, first_environment())]
        if self.symbols.name == "ascii":
            from acrf_tui.ascii import AsciiOnly

            self.more_filters = [AsciiOnly()]
        self.slow = self.options.slow or self.settings.slow == "on"
        self.sparing = self.slow or (self.settings.slow == "auto" and over_ssh(os.environ))
        if self.sparing:
            self.animation_level = "none"
            fewer_frames(SSH_FRAMES)
        self.ready = True
        return wrong

    # ------------------------------------------------------------------ themes

    def action_change_theme(self) -> None:
        """Pick from all themes, each seen at once."""
        if self._keeper is not None and not self._keeper.previewing:
            self._keeper.choose()

    def put_theme_on_again(self) -> None:
        """The colours of the theme that is on have changed."""
        self._watch_theme(self.theme)

    # ------------------------------------------------------------------ screens

    def open_run(self, folder: RunFolder) -> None:
        """Show a run's dashboard."""
        from acrf_engine.run.client import Run
        from acrf_tui.screens.dashboard import DashboardScreen

        if all(folder.path != known.path for known in self.opened):
            self.opened.append(folder)
        dashboard = DashboardScreen(Run(folder, observe=self.options.observe), slow=self.slow)
        self.push_screen(dashboard, self._dashboard_left)

    def _dashboard_left(self, result: str | None) -> None:
        if self.launchpad is None:
            self.exit(0)

    def on_launchpad_screen_open_run(self, message: LaunchpadScreen.OpenRun) -> None:
        """The launchpad wants to see a run."""
        self.open_run(message.folder)

    def on_launchpad_screen_compare(self, message: LaunchpadScreen.Compare) -> None:
        """The launchpad wants to see runs over one another."""
        from acrf_tui.screens.compare import CompareScreen

        self.push_screen(CompareScreen(message.folders))

    def on_launchpad_screen_new_run(self, message: LaunchpadScreen.NewRun) -> None:
        """The launchpad wants to start a config on the user's own data."""
        from acrf_tui.screens.new_run import NewRunDialog

        def answered(folder: RunFolder | None) -> None:
            if folder is not None:
                self.open_run(folder)

        self.push_screen(NewRunDialog(message.entry, self.options.runs_dir), answered)

    async def action_jump(self) -> None:
        """Show a letter over everything that can have the focus."""
        from acrf_tui.screens.jump import jump

        await jump(self.screen)

    def on_launchpad_screen_edit_config(self, message: LaunchpadScreen.EditConfig) -> None:
        """The launchpad wants to edit a config."""
        from acrf_tui.screens.editor import EditorScreen

        launchpad = self.launchpad
        self.push_screen(EditorScreen(message.entry.path), launchpad.choose_config if launchpad else None)

    def _leave(self, status: int) -> None:
        self.exit(status, return_code=status)

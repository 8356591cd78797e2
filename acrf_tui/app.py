"""The app: it wires screens, themes, signals and the terminal, and holds nothing else."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import platformdirs
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.theme import Theme
from textual.widgets import Static

from acrf_engine import __version__
from acrf_engine.run.folder import APP_NAME, RunError, RunFolder
from acrf_tui import collector
from acrf_tui.shipped import shipped
from acrf_tui.terminal import ANSI_THEME, choose_colors, leave_on_signals, terminal_modes

if TYPE_CHECKING:
    from textual.command import Provider

    from acrf_tui.screens.launchpad import LaunchpadScreen

SETTLED_S = 3.0
"""After so many seconds the first screen is drawn, also of a long run on a busy machine."""


@dataclass
class AppOptions:
    """What the command line asks of the app. `color`: auto, 16, 256, truecolor or none."""

    runs_dir: Path
    slow: bool = False
    theme: str | None = None
    mouse: bool = True
    color: str = "auto"
    observe: bool = False


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


class AcrfApp(App[int]):
    """Screens come and go; the training never notices."""

    TITLE = "acrf-tui"
    CSS_PATH = "styles/app.tcss"
    ENABLE_COMMAND_PALETTE = True
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "j,ctrl+o", "jump", "Jump", show=False, id="app.jump", tooltip="Jump to a panel, list or field by a letter"
        ),
    ]
    COMMANDS: ClassVar[set[type[Provider] | Callable[[], type[Provider]]]] = {_actions_provider}

    def __init__(self, options: AppOptions, folder: RunFolder | None = None, *, colorless: bool = False) -> None:
        # Without colours Textual's filter for ANSI themes is the one that copes with cells of no style.
        super().__init__(ansi_color=True if colorless else None)
        self.options = options
        self.folder = folder
        self.colorless = colorless
        self._terminal_modes = terminal_modes()
        self.opened: list[RunFolder] = []
        self.launchpad: LaunchpadScreen | None = None
        if not remembered().get("dark", True):
            self.theme = "textual-light"  # until our themes are read: a bright terminal must not flash dark

    def compose(self) -> ComposeResult:
        yield Static(f" acrf-tui {__version__}", id="splash")

    def on_mount(self) -> None:
        leave_on_signals(self._leave, self._terminal_modes)
        self.call_after_refresh(self._begin)
        self.set_timer(SETTLED_S, collector.release)

    def _begin(self) -> None:
        """After the first paint: read the themes and open the first screen."""
        errors = self._take_themes()
        self.theme_changed_signal.subscribe(self, self._remember_theme)
        if self.folder is not None:
            self.open_run(self.folder)
        else:
            from acrf_tui.screens.launchpad import LaunchpadScreen

            self.launchpad = LaunchpadScreen(self.options.runs_dir)
            self.push_screen(self.launchpad)
        if errors:
            self.notify("\n".join(errors), title="Themes", severity="warning", timeout=12, markup=False)

    # ------------------------------------------------------------------ themes

    def _take_themes(self) -> list[str]:
        from acrf_tui.themes import DEFAULT_THEME, load_themes

        themes, errors = load_themes([shipped("themes"), platformdirs.user_config_path(APP_NAME) / "themes"])
        for theme in themes:
            self.register_theme(theme)
        wanted = self.options.theme
        if wanted is not None and wanted not in self.available_themes:
            known = ", ".join(sorted(self.available_themes))
            errors.append(f"--theme {wanted}: there is no such theme (known: {known})")
        few_colors = self.colorless or self.console.color_system == "standard"
        for name in (wanted, ANSI_THEME if few_colors else remembered().get("theme"), DEFAULT_THEME):
            if isinstance(name, str) and name in self.available_themes:
                self.theme = name
                break
        return errors

    def _remember_theme(self, theme: Theme) -> None:
        if theme.name != self.options.theme:
            remember(theme=theme.name, dark=theme.dark)

    # ------------------------------------------------------------------ screens

    def open_run(self, folder: RunFolder) -> None:
        """Show a run's dashboard."""
        from acrf_engine.run.client import Run
        from acrf_tui.screens.dashboard import DashboardScreen

        if all(folder.path != known.path for known in self.opened):
            self.opened.append(folder)
        dashboard = DashboardScreen(Run(folder, observe=self.options.observe), slow=self.options.slow)
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

    def _leave(self, status: int) -> None:
        self.exit(status, return_code=status)


# ---- what the app remembers between days -----------------------------------------------------------------------------


def _memory_file() -> Path:
    return platformdirs.user_state_path(APP_NAME) / "app.json"


def remembered() -> dict[str, Any]:
    """What was remembered, such as `theme`; empty where nothing readable says so."""
    try:
        found = json.loads(_memory_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def remember(**values: Any) -> None:
    """Remember these values too. A read-only home costs the memory, never the app."""
    with contextlib.suppress(OSError):
        file = _memory_file()
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file.write_text(json.dumps({**remembered(), **values}) + "\n", encoding="utf-8")

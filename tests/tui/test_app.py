"""The app's wiring: what it loads, themes, colours, signals, the palette, and leaving."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from textual import constants
from textual.command import CommandPalette
from textual.widgets import Input

from acrf_engine.config import dump, load_config
from acrf_engine.run.folder import RunFolder, create_run
from acrf_tui import app as module
from acrf_tui import memory
from acrf_tui.app import AcrfApp, AppOptions
from acrf_tui.commands import ActionsProvider
from acrf_tui.screens.dashboard import DashboardScreen
from acrf_tui.screens.launchpad import LaunchpadScreen
from acrf_tui.screens.launchpad_lists import ConfigList
from acrf_tui.shipped import shipped
from acrf_tui.terminal import choose_colors
from tests.tui.waiting import until

HEAVY = ("torch", "diffusers", "transformers", "pydantic", "PIL", "numpy", "yaml")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("COLORTERM", "truecolor")
    return tmp_path


@pytest.fixture
def colors() -> Iterator[None]:
    """What `choose_colors` changes is put back."""
    before = constants.COLOR_SYSTEM
    yield
    constants.COLOR_SYSTEM = before
    os.environ.pop("NO_COLOR", None)


def ended_run(home: Path) -> RunFolder:
    folder = create_run(home / "runs", "ended", dump(load_config(shipped("sample_configs") / "demo.yaml")))
    status = folder.recorded_status()
    status.state = "finished"
    folder.write_status(status)
    return folder


@pytest.mark.parametrize("name", ["acrf_tui.cli", "acrf_tui.app"])
def test_importing_the_app_loads_nothing_heavy(name: str) -> None:
    code = f"import sys, {name}; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_launchpad_is_drawn_without_what_only_a_run_needs() -> None:
    only_a_run = ("acrf_engine.protocol", "acrf_tui.state", "sqlite3")
    code = f"import sys, acrf_tui.screens.launchpad; print([name for name in {only_a_run!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["acrf_tui.screens.launchpad", "acrf_tui.screens.new_run", "acrf_tui.commands"])
def test_importing_its_screens_loads_no_schema_and_no_torch(name: str) -> None:
    code = f"import sys, {name}; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


async def test_with_a_run_its_dashboard_opens_and_leaving_it_ends_the_app(home: Path) -> None:
    app = AcrfApp(AppOptions(home / "runs"), ended_run(home))
    async with app.run_test(size=(120, 40)) as pilot:
        await until(lambda: isinstance(app.screen, DashboardScreen) and app.screen.run_state.ended)
        await pilot.press("q")
        await until(lambda: app.return_value == 0)


async def test_from_the_launchpad_leaving_a_run_returns_to_it(home: Path) -> None:
    ended_run(home)
    app = AcrfApp(AppOptions(home / "runs"))
    async with app.run_test(size=(120, 40)) as pilot:
        await until(lambda: isinstance(app.screen, LaunchpadScreen) and len(app.screen.query("#runs")) == 1)
        launchpad = app.screen
        await until(lambda: bool(launchpad.query_one("#runs").display))
        await until(lambda: launchpad.focused is not None)
        while not launchpad.query_one("#runs").has_focus:  # what the config will do takes the focus where it scrolls
            await pilot.press("tab")
        await pilot.press("enter")
        await until(lambda: isinstance(app.screen, DashboardScreen) and app.screen.run_state.ended)
        await pilot.press("q")
        await until(lambda: app.screen is launchpad)
        assert launchpad.query_one("#runs").has_focus


def test_leaving_says_which_runs_go_on(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ended = ended_run(home)
    going = create_run(home / "runs", "night", "")
    with going.hold():
        module._say_what_goes_on([ended, going, RunFolder(home / "runs" / "gone")])
    assert capsys.readouterr().out == "run night goes on: acrf-tui attach night\n"


# ---- themes and colours ----------------------------------------------------------------------------------------------


async def themed(options: AppOptions) -> tuple[str, list[str]]:
    app = AcrfApp(options)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(lambda: isinstance(app.screen, LaunchpadScreen))
        await pilot.pause()
        return app.theme, [note.message for note in app._notifications]


async def test_our_dark_theme_is_the_default_and_the_chosen_one_is_remembered(home: Path) -> None:
    app = AcrfApp(AppOptions(home / "runs"))
    async with app.run_test(size=(80, 24)) as pilot:
        await until(lambda: isinstance(app.screen, LaunchpadScreen))
        assert app.theme == "acrf-dark"
        app.theme = "acrf-light"
        await pilot.pause()
    assert json.loads((home / "state" / "acrf-tui" / "app.json").read_text()) == {"theme": "acrf-light", "dark": False}
    assert (await themed(AppOptions(home / "runs")))[0] == "acrf-light"


async def test_a_theme_of_the_command_line_is_for_this_time_only(home: Path) -> None:
    memory.remember(theme="acrf-light", dark=False)
    assert (await themed(AppOptions(home / "runs", theme="acrf-contrast")))[0] == "acrf-contrast"
    assert memory.remembered()["theme"] == "acrf-light"


async def test_broken_themes_and_unknown_names_are_said_in_one_toast(home: Path) -> None:
    folder = home / "config" / "acrf-tui" / "themes"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("name: mine\nprimary: notacolour\n")
    (folder / "good.yaml").write_text("name: good\nprimary: '#ff8800'\n")
    theme, notes = await themed(AppOptions(home / "runs", theme="nonesuch"))
    assert theme == "acrf-dark"
    assert len(notes) == 1
    assert "mine.yaml" in notes[0]
    assert "nonesuch" in notes[0]
    assert "good" in notes[0]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"theme": 7}', '{"theme": "gone"}'])
async def test_a_memory_of_garbage_is_no_trouble(home: Path, text: str) -> None:
    file = home / "state" / "acrf-tui" / "app.json"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    assert await themed(AppOptions(home / "runs")) == ("acrf-dark", [])


def test_a_home_that_cannot_be_written_costs_the_memory_only(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "file"))
    memory.remember(theme="acrf-light")
    assert memory.remembered() == {}


@pytest.mark.usefixtures("colors")
@pytest.mark.parametrize(
    ("choice", "system", "theme"),
    [("16", "standard", "acrf-ansi"), ("256", "256", "acrf-dark"), ("truecolor", "truecolor", "acrf-dark")],
)
async def test_the_colours_asked_for_are_drawn(home: Path, choice: str, system: str, theme: str) -> None:
    assert not choose_colors(choice)
    app = AcrfApp(AppOptions(home / "runs"))
    async with app.run_test(size=(80, 24)):
        await until(lambda: isinstance(app.screen, LaunchpadScreen))
        assert app.console.color_system == system
        assert app.theme == theme


@pytest.mark.usefixtures("colors")
async def test_without_colours_every_screen_is_drawn(home: Path) -> None:
    folder = ended_run(home)
    assert choose_colors("none")
    app = AcrfApp(AppOptions(home / "runs"), folder, colorless=True)
    async with app.run_test(size=(120, 40)) as pilot:
        await until(lambda: isinstance(app.screen, DashboardScreen))
        await pilot.pause()
        assert app.no_color
        assert app.theme == "acrf-ansi"


# ---- the palette -----------------------------------------------------------------------------------------------------


async def test_the_palette_has_every_action_and_our_themes(home: Path) -> None:
    app = AcrfApp(AppOptions(home / "runs"))
    async with app.run_test(size=(120, 40)) as pilot:
        await until(lambda: bool(app.screen.query(ConfigList)) and app.screen.query_one(ConfigList).chosen is not None)
        names = [command.name for command in ActionsProvider(app.screen)._commands()]
        for wanted in ("Start a run of the chosen config", "Start the demo", "Close the app", "Theme: acrf-light"):
            assert any(name.startswith(wanted) for name in names), names
        await pilot.press("ctrl+p")
        await until(lambda: isinstance(app.screen, CommandPalette))
        app.screen.query_one(Input).value = "theme acrf-light"
        await pilot.pause(0.5)
        await pilot.press("enter")
        await until(lambda: app.theme == "acrf-light")


async def test_an_action_of_the_palette_acts_on_the_screen_below(home: Path) -> None:
    app = AcrfApp(AppOptions(home / "runs"))
    async with app.run_test(size=(120, 40)) as pilot:
        await until(lambda: bool(app.screen.query(ConfigList)) and app.screen.query_one(ConfigList).chosen is not None)
        await pilot.press("ctrl+p")
        await until(lambda: isinstance(app.screen, CommandPalette))
        app.screen.query_one(Input).value = "own pictures"
        await pilot.pause(0.5)
        await pilot.press("enter")
        await until(lambda: type(app.screen).__name__ == "NewRunDialog")


# ---- a real terminal -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_the_app_and_restores_the_terminal(home: Path, number: int, status: int) -> None:
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"}
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(sys.executable, [sys.executable, "-P", "-m", "acrf_tui.cli"], environment)
    screen = read_until(terminal, b"paper-defaults", 30)
    assert b"\x1b[?1049h" in screen
    os.kill(pid, number)
    rest = read_until(terminal, b"\x1b[?1049l", 10)
    assert b"\x1b[?1049l" in rest
    _, waited = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(waited) == status


def read_until(terminal: int, wanted: bytes, seconds: float) -> bytes:
    """What the terminal got, up to and with `wanted`."""
    found = b""
    end = time.monotonic() + seconds
    while wanted not in found and time.monotonic() < end:
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                found += os.read(terminal, 65536)
            except OSError:
                break
    return found


def test_a_started_app_collects_cycles_again_and_leaves_what_it_imported_alone() -> None:
    code = (
        "import gc; from acrf_tui import collector; collector.release(); print(gc.isenabled(), gc.get_freeze_count());"
        "collector.hold(); print(gc.isenabled()); collector.release(); print(gc.isenabled(), gc.get_freeze_count() > 0)"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "0", "False", "True", "True"]

"""The theme picker and themes that change on disk; and what lies below a dialog stays calm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fake_run import FakeSource, make_history, make_step
from textual.screen import Screen
from textual.widgets import OptionList

from acrf_tui import theme_keeper
from acrf_tui.app import AcrfApp, AppOptions
from acrf_tui.commands import ActionsProvider
from acrf_tui.screens.dashboard import DashboardScreen
from acrf_tui.screens.dialogs import LeaveDialog
from acrf_tui.screens.launchpad import LaunchpadScreen
from acrf_tui.screens.theme_dialog import ThemeDialog
from tests.tui.waiting import until


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("COLORFGBG", raising=False)
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.setattr(theme_keeper, "LOOK_SECONDS", 0.1)
    return tmp_path


def remembered_theme(home: Path) -> str | None:
    file = home / "state" / "acrf-tui" / "app.json"
    return json.loads(file.read_text()).get("theme") if file.exists() else None


async def test_moving_shows_a_theme_escape_undoes_it_and_enter_keeps_it(home: Path) -> None:
    app = AcrfApp(AppOptions(home / "runs"))
    async with app.run_test(size=(120, 40)) as pilot:
        await until(lambda: isinstance(app.screen, LaunchpadScreen))
        await pilot.pause()
        await pilot.press("T")
        await until(lambda: isinstance(app.screen, ThemeDialog))
        assert app.screen.query_one(OptionList).highlighted_option.id == "acrf-dark"
        await pilot.press("down")
        await until(lambda: app.theme == "acrf-light")
        assert remembered_theme(home) is None
        await pilot.press("escape")
        await until(lambda: isinstance(app.screen, LaunchpadScreen))
        assert app.theme == "acrf-dark"
        await pilot.pause()
        assert remembered_theme(home) in (None, "acrf-dark")
        await pilot.press("T")
        await until(lambda: isinstance(app.screen, ThemeDialog))
        await pilot.press("down", "enter")  # faster than the preview
        await until(lambda: isinstance(app.screen, LaunchpadScreen))
        assert app.theme == "acrf-light"
        await until(lambda: remembered_theme(home) == "acrf-light")


async def test_holding_a_key_shows_only_the_last_theme(home: Path) -> None:
    app = AcrfApp(AppOptions(home / "runs"))
    async with app.run_test(size=(120, 40)) as pilot:
        await until(lambda: isinstance(app.screen, LaunchpadScreen))
        await pilot.press("T")
        await until(lambda: isinstance(app.screen, ThemeDialog))
        await pilot.pause(0.3)
        shown: list[str] = []
        app.theme_changed_signal.subscribe(app.screen, lambda theme: shown.append(theme.name))
        await pilot.press(*["down"] * 6)
        await until(lambda: bool(shown))
        await pilot.pause(0.3)
        assert shown == [app.screen.query_one(OptionList).highlighted_option.id]


async def test_a_light_terminal_gets_the_light_theme_until_one_is_chosen(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLORFGBG", "0;15")
    app = AcrfApp(AppOptions(home / "runs"))
    async with app.run_test(size=(80, 24)) as pilot:
        await until(lambda: isinstance(app.screen, LaunchpadScreen))
        assert app.theme == "acrf-light"
        await pilot.pause()
        assert remembered_theme(home) is None
        app.theme = "acrf-dark"
        await until(lambda: remembered_theme(home) == "acrf-dark")


async def test_an_own_theme_is_read_again_when_its_file_changes(home: Path) -> None:
    file = home / "config" / "acrf-tui" / "themes" / "mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("primary: '#ff0000'\n")
    app = AcrfApp(AppOptions(home / "runs", theme="mine"))
    async with app.run_test(size=(80, 24)):
        await until(lambda: isinstance(app.screen, LaunchpadScreen))
        red = app.theme_variables["primary"]
        file.write_text("primary: '#00ff00'\n# longer\n")
        await until(lambda: app.theme_variables["primary"] != red)
        green = app.theme_variables["primary"]
        file.write_text("primary: green-ish\nforeground: '#12'\n")
        await until(lambda: bool(app._notifications))
        (note,) = app._notifications
        assert "mine.yaml: primary:" in note.message
        assert "mine.yaml: foreground:" in note.message
        assert app.theme_variables["primary"] == green
        (file.parent / "second.yaml").write_text("primary: '#0000ff'\n")
        await until(lambda: "second" in app.available_themes)
        (file.parent / "second.yaml").unlink()
        await until(lambda: "second" not in app.available_themes)


async def test_the_palette_has_the_actions_of_the_whole_app_also_for_an_observer(home: Path) -> None:
    app = AcrfApp(AppOptions(home / "runs"))
    source = FakeSource(make_history(20))
    source.read_only = True
    async with app.run_test(size=(120, 40)) as pilot:
        await until(lambda: isinstance(app.screen, LaunchpadScreen))
        screen = DashboardScreen(source)
        app.push_screen(screen)
        await until(lambda: screen.run_state.state == "running")
        await pilot.pause()
        names = [command.name for command in ActionsProvider(screen)._commands()]
        for wanted in ("Copy the selection", "Save a picture", "Choose a theme", "The worker's log"):
            assert any(name.startswith(wanted) for name in names), names
        assert not any(name.startswith("Pause or resume") for name in names)


async def test_a_live_run_below_a_dialog_is_not_repainted_whole_again_and_again(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = AcrfApp(AppOptions(home / "runs"))
    source = FakeSource(make_history(20))
    async with app.run_test(size=(120, 40)) as pilot:
        await until(lambda: isinstance(app.screen, LaunchpadScreen))
        screen = DashboardScreen(source)
        app.push_screen(screen)
        await until(lambda: screen.run_state.state == "running")
        app.push_screen(LeaveDialog("night", may_stop=True))
        await until(lambda: isinstance(app.screen, LeaveDialog))
        source.push(make_step(21))
        await until(lambda: screen.run_state.step == 21)
        await pilot.pause(0.6)
        cells: list[int] = []
        display = app._display

        def counting(screen: Screen[object], update: Any) -> None:
            cells.append(sum(end - start for _, start, end in getattr(update, "spans", ())))
            display(screen, update)

        monkeypatch.setattr(app, "_display", counting)
        source.push(make_step(22))
        await until(lambda: sum(cells) > 0 and screen.run_state.step == 22)
        await pilot.pause(1.0)
        assert max(cells) < 120 * 40 / 2

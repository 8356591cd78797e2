"""settings.yaml: what is right holds, what is wrong is said once with its place, and the app starts all the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from textual import screen as textual_screen
from textual.widgets import Input

from acrf_tui.app import SSH_FRAMES, AcrfApp, AppOptions
from acrf_tui.screens.launchpad import LaunchpadScreen
from acrf_tui.settings import CHOICES, Settings, read_settings, screenshots_folder, settings_file
from tests.tui.waiting import until

DOCS = Path(__file__).parents[2] / "docs" / "settings.md"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("NO_COLOR", "SSH_CONNECTION", "SSH_TTY", "COLORFGBG"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture(autouse=True)
def frames() -> Iterator[None]:
    before = textual_screen.UPDATE_PERIOD
    yield
    textual_screen.UPDATE_PERIOD = before


def written(text: str) -> Path:
    file = settings_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def test_without_a_file_everything_is_as_usual() -> None:
    assert read_settings(settings_file()) == (Settings(), [])


def test_what_is_chosen_holds(home: Path) -> None:
    settings, wrong = read_settings(written(f"symbols: block\nnotify: osc9\nslow: on\nscreenshots: {home}/shots\n"))
    assert wrong == []
    assert settings == Settings("block", "osc9", "on", f"{home}/shots")
    assert screenshots_folder(settings) == home / "shots"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("symbol: block", "symbol: there is no such setting (did you mean symbols?)"),
        ("colour: red", "colour: there is no such setting (known: symbols, notify, slow, screenshots)"),
        ("notify: bel", "notify: 'bel' is none of the choices (did you mean bell?)"),
        ("slow: true", "slow: write on (true is another word in YAML)"),
        ("slow: 3", "slow: 3 is none of the choices"),
        ("slow: [on]", "slow: ['on'] is none of the choices"),
        ("screenshots: shots", "screenshots: 'shots' must begin with / or ~"),
        ("screenshots:", "screenshots: must be a folder"),
    ],
)
def test_a_mistake_is_named_with_its_place_and_the_rest_holds(line: str, said: str) -> None:
    file = written(f"# mine\nsymbols: ascii\n{line}\n")
    settings, wrong = read_settings(file)
    assert settings.symbols == "ascii"
    assert len(wrong) == 1
    assert wrong[0].startswith(f"{file}:3: {said}")


@pytest.mark.parametrize("text", ["- a\n", "symbols: [", "symbols: ascii\nsymbols: block\n", "\x00"])
def test_a_file_that_is_none_is_one_message(text: str) -> None:
    settings, wrong = read_settings(written(text))
    assert settings == Settings()
    assert len(wrong) == 1
    assert str(settings_file()) in wrong[0]


def test_the_page_names_every_setting_and_choice() -> None:
    page = DOCS.read_text()
    for field in fields(Settings):
        assert f"`{field.name}`" in page
        for choice in CHOICES.get(field.name, ()):
            assert f"`{choice}`" in page, (field.name, choice)


async def begun(home: Path, **options: object) -> tuple[AcrfApp, list[str]]:
    app = AcrfApp(AppOptions(home / "runs", **options))
    async with app.run_test(size=(80, 24)) as pilot:
        await until(lambda: isinstance(app.screen, LaunchpadScreen))
        await pilot.pause()
        return app, [note.message for note in app._notifications]


async def test_a_broken_file_is_one_toast_and_the_app_starts(home: Path) -> None:
    written("symbols: dots\nnonsense: 1\n")
    app, notes = await begun(home)
    assert len(notes) == 1
    assert ":1: symbols: 'dots'" in notes[0]
    assert ":2: nonsense:" in notes[0]
    assert app.symbols.name == "braille"


async def test_the_command_line_overrules_the_file(home: Path) -> None:
    written("symbols: ascii\n")
    assert (await begun(home))[0].symbols.name == "ascii"
    assert (await begun(home, symbols="block"))[0].symbols.name == "block"


@pytest.mark.parametrize(
    ("ssh", "setting", "slow", "sparing"),
    [
        (False, "auto", False, False),
        (True, "auto", False, True),
        (True, "off", False, False),
        (False, "on", True, True),
    ],
)
async def test_over_ssh_the_line_is_spared_unless_told_otherwise(
    home: Path, monkeypatch: pytest.MonkeyPatch, ssh: bool, setting: str, slow: bool, sparing: bool
) -> None:
    if ssh:
        monkeypatch.setenv("SSH_CONNECTION", "192.0.2.7 50000 192.0.2.1 22")
    written(f"slow: {setting}\n")
    app, _ = await begun(home)
    assert (app.slow, app.sparing) == (slow, sparing)
    assert app.animation_level == ("none" if sparing else "full")
    assert (textual_screen.UPDATE_PERIOD == 1 / SSH_FRAMES) is sparing


async def test_no_cursor_blinks_over_a_slow_line(home: Path) -> None:
    app = AcrfApp(AppOptions(home / "runs", slow=True))
    async with app.run_test(size=(80, 24)) as pilot:
        await until(lambda: isinstance(app.screen, LaunchpadScreen))
        field = Input()
        await app.screen.mount(field)
        field.focus()
        await pilot.pause()
        assert not field.cursor_blink

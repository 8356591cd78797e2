"""keys.yaml: every key can be changed, conflicts and mistakes are refused by name, help and keys line follow."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fake_run import FakeSource, make_history
from textual.binding import BindingsMap
from textual.widgets import Input

from acrf_tui.app import AcrfApp, AppOptions
from acrf_tui.cli import main
from acrf_tui.key_names import normal_key
from acrf_tui.keymap import all_entries, read_keys
from acrf_tui.panels.keys import KeysLine
from acrf_tui.screens.dashboard import DashboardScreen
from acrf_tui.screens.dialogs import HelpDialog
from acrf_tui.screens.launchpad import LaunchpadScreen
from acrf_tui.settings import keys_file
from tests.tui.waiting import until

DOCS = Path(__file__).parents[2] / "docs" / "keys.md"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("NO_COLOR", raising=False)
    return tmp_path


def written(text: str) -> Path:
    file = keys_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


@pytest.mark.parametrize(
    ("written_as", "key"),
    [
        ("p", "p"), ("P", "P"), ("?", "question_mark"), ("/", "slash"), ("+", "plus"), (" ", "space"),
        ("space", "space"), ("f12", "f12"), ("ctrl+x", "ctrl+x"), ("shift+up", "shift+up"), ("alt+x", "alt+x"),
        ("slash", "slash"), ("full_stop", "full_stop"), ("ü", "ü"), ("ctrl+t", "ctrl+t"),
    ],
)  # fmt: skip
def test_keys_are_written_as_one_types_them_or_by_name(written_as: str, key: str) -> None:
    assert normal_key(written_as) == key


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("esc", "did you mean escape?"),
        ("return", "did you mean enter?"),
        ("Enter", "did you mean enter?"),
        ("ctrl+pgup", "did you mean ctrl+pageup?"),
        ("control+x", "ctrl+x"),
        ("shift+a", "write A"),
        ("ctrl+i", "same as tab"),
        ("ctrl+m", "same as enter"),
        ("spce", "did you mean space?"),
        ("nonsense-key", "is no key"),
        ("ctrl+", "is no key"),
        ("", "is no key"),
    ],
)
def test_what_is_no_key_is_refused_with_what_was_meant(name: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        normal_key(name)


def test_every_default_key_could_be_written_by_a_user() -> None:
    for entry in all_entries():
        for key in entry.keys:
            assert normal_key(key) == key


def test_every_binding_with_a_description_has_an_id() -> None:
    all_entries()
    for owner in {entry.owner for entry in all_entries()}:
        for _, binding in BindingsMap(owner.__dict__["BINDINGS"]):
            assert binding.id or not binding.description, (owner, binding)


def test_good_lines_hold_and_bad_ones_are_named_with_their_place() -> None:
    file = written(
        "run.pause: k\n"
        "run.puase: x\n"
        "run.checkpoint: esc\n"
        "view.zoom: [Z, f5]\n"
        "run.tweak: 9\n"
        "view.freeze: tab\n"
        "loss.log: true\n"
        "loss.raw: []\n"
    )
    keymap, wrong = read_keys(file)
    assert keymap == {"run.pause": "k", "view.zoom": "Z,f5", "run.tweak": "9"}
    assert [text.removeprefix(f"{file}:").partition(" (")[0] for text in wrong] == [
        "2: run.puase: there is nothing of that id",
        "3: run.checkpoint: 'esc' is no key",
        "6: view.freeze: tab goes to the next part of the screen",
        "7: loss.log: True is no key",
        "8: loss.raw: must be a key, or several in brackets, such as [p, f5]",
    ]
    assert "did you mean run.pause?" in wrong[0]


def test_a_key_that_something_else_has_is_refused_by_name() -> None:
    file = written("run.pause: c\nlog.close: c\n")
    keymap, wrong = read_keys(file)
    assert keymap == {"log.close": "c"}
    assert len(wrong) == 1
    assert wrong[0].startswith(f"{file}:1: run.pause: c is the key of run.checkpoint already")


def test_a_key_of_a_panel_or_of_the_whole_app_is_taken_too() -> None:
    _, wrong = read_keys(written("run.pause: up\nview.zoom: y\n"))
    assert "journal.older" in wrong[0]
    assert "app.copy" in wrong[1]


def test_two_keys_can_be_swapped() -> None:
    assert read_keys(written("run.pause: c\nrun.checkpoint: space\n")) == (
        {"run.pause": "c", "run.checkpoint": "space"},
        [],
    )


def test_two_ids_cannot_be_given_one_key() -> None:
    keymap, wrong = read_keys(written("run.pause: f9\nrun.checkpoint: f9\n"))
    assert len(keymap) == 1
    assert len(wrong) == 1


def test_ids_that_take_turns_on_a_key_do_not_lose_it() -> None:
    """r resumes a stopped run and trains a finished one further."""
    assert read_keys(written("launchpad.resume: k\n"))[0] == {"launchpad.resume": "k", "launchpad.extend": "r"}


def test_a_default_may_be_written_down() -> None:
    text = "".join(f"{entry.id}: [{', '.join(entry.keys)}]\n" for entry in all_entries() if entry.id == "journal.all")
    assert read_keys(written(text)) == ({"journal.all": "escape"}, [])


async def test_a_new_key_works_is_shown_and_leaves_the_old_one_free(home: Path) -> None:
    written("run.pause: k\n")
    app = AcrfApp(AppOptions(home / "runs"))
    source = FakeSource(make_history(50))
    async with app.run_test(size=(120, 40)) as pilot:
        await until(lambda: isinstance(app.screen, LaunchpadScreen))
        screen = DashboardScreen(source)
        app.push_screen(screen)
        await until(lambda: app.screen is screen and screen.run_state.state == "running")
        await pilot.pause()
        await pilot.press("space")
        await pilot.press("k")
        await until(lambda: bool(source.sent))
        assert [name for name, _ in source.sent] == ["pause"]
        line = screen.query_one(KeysLine)
        await until(lambda: any(text.strip() == "k" for text, _ in line.lines[0]))
        assert not any(text.strip() == "space" for text, _ in line.lines[0])
        await pilot.press("question_mark")
        await until(lambda: isinstance(app.screen, HelpDialog))
        assert any(one.key == "k" and one.tooltip.startswith("Pause") for one in app.screen.keys)


async def test_a_new_key_that_is_a_letter_can_still_be_typed(home: Path) -> None:
    written("run.pause: k\n")
    app = AcrfApp(AppOptions(home / "runs"))
    source = FakeSource(make_history(50))
    async with app.run_test(size=(120, 40)) as pilot:
        await until(lambda: isinstance(app.screen, LaunchpadScreen))
        screen = DashboardScreen(source)
        app.push_screen(screen)
        await until(lambda: app.screen is screen and screen.run_state.state == "running")
        await pilot.press("slash")
        await until(lambda: isinstance(screen.focused, Input))
        await pilot.press("k")
        await pilot.pause()
        assert screen.query_one("#journal-filter", Input).value == "k"
        assert source.sent == []


async def test_mistakes_are_one_toast(home: Path) -> None:
    written("run.pause: c\nnothing.here: x\n")
    app = AcrfApp(AppOptions(home / "runs"))
    async with app.run_test(size=(120, 40)):
        await until(lambda: bool(app._notifications))
        (note,) = app._notifications
        assert ":1: run.pause: c is the key of run.checkpoint" in note.message
        assert ":2: nothing.here:" in note.message


def test_the_table_shows_own_keys_and_says_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys"]) == 0
    assert "run.pause" in capsys.readouterr().out
    written("run.pause: k\nnothing.here: x\n")
    assert main(["keys"]) == 2
    printed = capsys.readouterr()
    line = next(line for line in printed.out.splitlines() if "run.pause" in line)
    assert " k " in line
    assert "(was space)" in line
    assert "nothing.here" in printed.err


def test_the_page_is_made_from_the_bindings(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "--markdown"]) == 0
    assert DOCS.read_text() == capsys.readouterr().out, "acrf-tui keys --markdown > docs/keys.md"

"""The log screen: it follows a log that grows, filters it, and stays readable whatever is in it."""

from __future__ import annotations

from pathlib import Path

from fake_run import FakeSource, make_history
from test_dashboard import dashboard, screen_text, settle, shows
from textual.widgets import Input, Log

from acrf_tui.filtering import matching
from acrf_tui.screens.log import LONGEST_READ, LogScreen, LogTail


def test_only_whole_lines_are_read_and_each_once(tmp_path: Path) -> None:
    path = tmp_path / "worker.log"
    path.write_text("one\ntw")
    tail = LogTail(path)
    assert tail.read() == ["one"]
    with path.open("a") as file:
        file.write("o\nthree\n")
    assert tail.read() == ["two", "three"]
    assert tail.read() == []


def test_a_long_log_is_read_from_its_end(tmp_path: Path) -> None:
    path = tmp_path / "worker.log"
    path.write_text("".join(f"line {number:07d}\n" for number in range(200_000)))
    lines = LogTail(path).read()
    assert lines[-1] == "line 0199999"
    assert lines[0].startswith("line ")
    assert LONGEST_READ / 13 - 2 <= len(lines) <= LONGEST_READ / 13


def test_a_log_that_was_cut_is_read_anew_and_bad_bytes_are_shown(tmp_path: Path) -> None:
    path = tmp_path / "worker.log"
    path.write_text("a long line, which the next one is not\n")
    tail = LogTail(path)
    tail.read()
    path.write_bytes(b"\x1b[31mred\xff\n 10%\r 20%\n")
    assert tail.read() == ["\\x1b[31mred\ufffd", " 20%"]


async def test_w_shows_the_log_follows_it_and_filters_it(tmp_path: Path) -> None:
    path = tmp_path / "worker.log"
    path.write_text("".join(f"step {number}\n" for number in range(200)) + "WARNING low memory\n")
    source = FakeSource(make_history(100))
    source.folder = tmp_path
    async with dashboard(source) as (pilot, _):
        await pilot.press("w")
        await shows(pilot, "WARNING low memory", "following", "201 lines")
        with path.open("a") as file:
            file.write("one more line\n")
        await shows(pilot, "one more line")
        await pilot.press("slash", *"warning")
        await settle(pilot, lambda: "step 199" not in screen_text(pilot.app))
        await shows(pilot, "WARNING low memory", "1 of 202 lines")
        await pilot.press("enter", "escape")
        await shows(pilot, "one more line", "step 199")
        await pilot.press("pageup", "pageup")
        await shows(pilot, "end: follow again")
        with path.open("a") as file:
            file.write("not in view\n")
        await settle(pilot, lambda: "203 lines" in screen_text(pilot.app))
        assert "not in view" not in screen_text(pilot.app)
        await pilot.press("end")
        await shows(pilot, "not in view")
        await pilot.press("escape")
        await settle(pilot, lambda: not isinstance(pilot.app.screen, LogScreen))


async def test_help_lists_the_keys_of_the_log_and_in_its_filter_a_question_mark_is_text(tmp_path: Path) -> None:
    (tmp_path / "worker.log").write_text("step 1\n")
    source = FakeSource(make_history(100))
    source.folder = tmp_path
    async with dashboard(source, size=(80, 24)) as (pilot, _):
        await pilot.press("w")
        await shows(pilot, "step 1", "? Help")
        await pilot.press("question_mark")
        await shows(pilot, "Show only lines that hold some words", "Go to the end and follow it", "leave the log")
        await pilot.press("escape")
        await settle(pilot, lambda: isinstance(pilot.app.screen, LogScreen))
        await pilot.press("slash", "question_mark")
        await settle(pilot, lambda: pilot.app.screen.query_one(Input).value == "?")
        assert isinstance(pilot.app.screen, LogScreen)


async def test_a_log_that_is_not_there_says_so(tmp_path: Path) -> None:
    source = FakeSource(make_history(100))
    source.folder = tmp_path / "gone"
    async with dashboard(source, size=(80, 24)) as (pilot, _):
        await pilot.press("w")
        await shows(pilot, "cannot be read: No such file or directory")
        assert pilot.app.screen.query_one(Log).line_count == 0


def test_all_words_of_a_filter_must_be_there_whatever_their_case() -> None:
    lines = ["Loading VAE", "loading text encoder", "step 3"]
    assert matching(lines, "LOADING vae") == ["Loading VAE"]
    assert matching(lines, "  ") == lines
    assert matching([(1, "a b"), (2, "b")], "b a", lambda one: one[1]) == [(1, "a b")]

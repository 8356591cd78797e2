"""Copying, ringing and pictures: what reaches the terminal beside the drawing, also through tmux."""

from __future__ import annotations

import base64
import math
import os
import re
import shutil
import stat
import sys
from pathlib import Path

import pytest
from fake_run import FakeSource, make_history, make_step

from acrf_engine.config import dump, load_config
from acrf_engine.protocol import Failed, Finished, Stopped, WarningEvent
from acrf_engine.run.folder import create_run
from acrf_tui.alerts import Alerts
from acrf_tui.app import AcrfApp, AppOptions
from acrf_tui.copying import next_command
from acrf_tui.screens.dashboard import DashboardScreen
from acrf_tui.screens.launchpad import LaunchpadScreen
from acrf_tui.screens.log import LogScreen
from acrf_tui.settings import settings_file
from acrf_tui.shipped import shipped
from acrf_tui.terminal_messages import LONGEST_COPY, SCREEN_CHUNK, clipboard_sequence, notification_sequence
from tests.e2e.terminal import Terminal
from tests.tui.waiting import until


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("NO_COLOR", "TMUX", "STY", "SSH_TTY", "SSH_CONNECTION"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def copied(sequence: str) -> str:
    found = re.search(r"\x1b\]52;c;([A-Za-z0-9+/=]*)\x07", sequence)
    assert found is not None
    return base64.b64decode(found[1]).decode()


# ---- the sequences ---------------------------------------------------------------------------------------------------


def test_the_clipboard_gets_the_text_as_it_is() -> None:
    assert clipboard_sequence("ä\x1b]0;evil\x07", {}) == "\x1b]52;c;w6QbXTA7ZXZpbAc=\a"


def test_in_tmux_it_goes_both_ways() -> None:
    once = clipboard_sequence("night", {})
    sequence = clipboard_sequence("night", {"TMUX": "socket,1,0"})
    assert sequence == once + "\x1bPtmux;" + once.replace("\x1b", "\x1b\x1b") + "\x1b\\"
    assert clipboard_sequence("night", {"TERM": "tmux-256color"}) == sequence


def test_in_screen_it_goes_in_pieces_that_screen_takes() -> None:
    text = "x" * 1000
    sequence = clipboard_sequence(text, {"STY": "1.pts-0"})
    pieces = re.findall(r"\x1bP(.*?)\x1b\\", sequence, re.DOTALL)
    assert all(len(piece) <= SCREEN_CHUNK for piece in pieces)
    assert copied("".join(pieces)) == text


def test_more_than_a_terminal_takes_is_refused() -> None:
    clipboard_sequence("x" * LONGEST_COPY, {})
    with pytest.raises(ValueError, match="74,995 bytes"):
        clipboard_sequence("x" * (LONGEST_COPY + 1), {})


def test_a_notification_cannot_speak_to_the_terminal() -> None:
    assert notification_sequence("a\x1b]52;c;eA==\x07b", {}) == "\x1b]9;a ]52;c;eA== b\a"


# ---- what is worth a notification ------------------------------------------------------------------------------------


def said(alerts: Alerts, *events: object) -> list[str]:
    return [alert.text for alert in alerts.of(events)]


def test_the_end_the_failure_and_nan_are_said_and_a_stop_is_not() -> None:
    alerts = Alerts("night")
    alerts.begin({"state": "running"})
    assert said(alerts, make_step(1), Stopped(2, "asked")) == []
    assert said(alerts, Finished(4000)) == ["night: finished at step 4,000"]
    assert said(alerts, Failed(7, "out of memory")) == ["night: failed at step 7: out of memory"]
    skipped = WarningEvent("skipped (1 of 5 in a row): step 8: loss is nan; no update was made", 7, time=100.0)
    assert said(alerts, skipped) == [f"night: {skipped.message}"]
    assert said(alerts, WarningEvent("2 pictures have no caption: in nance.jpg", 7, time=300.0)) == []


def test_nan_after_nan_is_said_once_a_minute() -> None:
    alerts = Alerts("night")
    events = [make_step(n, loss=math.nan, time=1000.0 + n) for n in range(100)]
    assert len(said(alerts, *events)) == 2


def test_a_run_that_vanishes_is_said_only_where_it_was_alive() -> None:
    alerts = Alerts("night")
    alerts.begin({"state": "interrupted"})
    assert alerts.ended({"state": "interrupted"}) == []
    alerts.begin({"state": "running"})
    assert [one.text for one in alerts.ended({"state": "interrupted", "error": "killed"})] == [
        "night: interrupted: killed"
    ]
    assert alerts.ended({"state": "interrupted"}) == []


@pytest.mark.parametrize(
    ("choice", "rings", "notifies"), [("none", 0, 0), ("bell", 1, 0), ("osc9", 0, 1), ("both", 1, 1)]
)
async def test_a_run_that_finishes_is_announced_as_wanted(
    home: Path, monkeypatch: pytest.MonkeyPatch, choice: str, rings: int, notifies: int
) -> None:
    settings_file().parent.mkdir(parents=True)
    settings_file().write_text(f"notify: {choice}\n")
    app = AcrfApp(AppOptions(home / "runs"))
    heard: list[str] = []
    monkeypatch.setattr(app, "bell", lambda: heard.append("bell"))
    monkeypatch.setattr(app, "tell_terminal", heard.append)
    source = FakeSource(make_history(20))
    async with app.run_test(size=(120, 40)) as pilot:
        await until(lambda: isinstance(app.screen, LaunchpadScreen))
        screen = DashboardScreen(source)
        app.push_screen(screen)
        await until(lambda: screen.run_state.state == "running")
        source.push(Finished(4000))
        await until(lambda: screen.run_state.state == "finished")
        await pilot.pause()
        source.end()
        await pilot.pause(0.2)
        assert heard.count("bell") == rings
        assert sum("]9;night-run: finished" in one for one in heard) == notifies


async def test_what_is_in_the_history_is_not_announced(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings_file().parent.mkdir(parents=True)
    settings_file().write_text("notify: both\n")
    app = AcrfApp(AppOptions(home / "runs"))
    heard: list[str] = []
    monkeypatch.setattr(app, "tell_terminal", heard.append)
    history = make_history(20)
    source = FakeSource(make_history(20, events=[*history.events, Finished(4000, seq=31)]))
    source.state = {"state": "finished", "error": None}
    source.end()
    async with app.run_test(size=(120, 40)) as pilot:
        await until(lambda: isinstance(app.screen, LaunchpadScreen))
        screen = DashboardScreen(source)
        app.push_screen(screen)
        await until(lambda: screen.run_state.state == "finished")
        await pilot.pause(0.2)
        assert heard == []


# ---- the key y -------------------------------------------------------------------------------------------------------


def test_the_next_command_fits_the_state_and_any_folder_name() -> None:
    folder = Path("/data/my runs/night")
    assert next_command(folder, "running") == "acrf-tui attach '/data/my runs/night'"
    assert next_command(folder, "interrupted") == "acrf-tui resume '/data/my runs/night'"
    assert next_command(folder, "finished") == (
        "acrf-tui export '/data/my runs/night' --format comfyui --out night.safetensors"
    )


async def test_y_copies_what_goes_on_from_here(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = create_run(home / "runs", "night", dump(load_config(shipped("sample_configs") / "demo.yaml")))
    status = run.recorded_status()
    status.state = "stopped"
    run.write_status(status)
    run.log.write_text("one\ntwo\n")
    app = AcrfApp(AppOptions(home / "runs"))
    sent: list[str] = []
    monkeypatch.setattr(app, "tell_terminal", sent.append)
    async with app.run_test(size=(120, 40)) as pilot:
        await until(lambda: isinstance(app.screen, LaunchpadScreen) and bool(app.screen.query("#runs")))
        await until(lambda: bool(app.screen.query_one("#runs").display))
        await pilot.press("y")
        await until(lambda: len(sent) == 1)
        assert copied(sent[0]).startswith("acrf-tui train ")
        app.screen.query_one("#runs").focus()
        await pilot.pause()
        await pilot.press("y")
        await until(lambda: len(sent) == 2)
        assert copied(sent[1]) == str(run.path)
        await pilot.press("enter")
        await until(lambda: isinstance(app.screen, DashboardScreen) and app.screen.run_state.ended)
        await pilot.press("y")
        await until(lambda: len(sent) == 3)
        assert copied(sent[2]) == f"acrf-tui resume {run.path}"
        await pilot.press("w")
        await until(lambda: isinstance(app.screen, LogScreen))
        await until(lambda: "two" in app.screen.query_one("#log").lines)
        await pilot.press("y")
        await until(lambda: len(sent) == 4)
        assert copied(sent[3]) == "one\ntwo"
        assert any(str(run.path) in note.message for note in app._notifications)


async def test_in_the_journal_y_copies_the_lowest_entry_in_view(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = AcrfApp(AppOptions(home / "runs"))
    sent: list[str] = []
    monkeypatch.setattr(app, "tell_terminal", sent.append)
    async with app.run_test(size=(120, 40)) as pilot:
        await until(lambda: isinstance(app.screen, LaunchpadScreen))
        screen = DashboardScreen(FakeSource(make_history(300)))
        app.push_screen(screen)
        await until(lambda: len(screen.run_state.journal) > 3)
        await pilot.press("7")
        await pilot.pause()
        await pilot.press("y")
        await until(lambda: bool(sent))
        assert copied(sent[0]) == screen.run_state.journal[-1].text


async def test_what_is_too_long_is_said_and_not_cut(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = AcrfApp(AppOptions(home / "runs"))
    sent: list[str] = []
    monkeypatch.setattr(app, "tell_terminal", sent.append)
    async with app.run_test(size=(80, 24)):
        await until(lambda: isinstance(app.screen, LaunchpadScreen))
        app.copy_to_clipboard("x" * 100_000)
        assert sent == []
        await until(lambda: any("100,000 bytes" in note.message for note in app._notifications))


@pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux")
@pytest.mark.parametrize("option", ["set-clipboard on", "allow-passthrough on"])
def test_y_reaches_the_terminal_outside_of_tmux(home: Path, option: str) -> None:
    """A real tmux in a real terminal: the bytes that come out of it carry what the app copied."""
    other = {"set-clipboard on": "allow-passthrough off", "allow-passthrough on": "set-clipboard off"}[option]
    config = home / "tmux.conf"
    config.write_text(
        f"set -g default-terminal tmux-256color\nset -g {option}\nset -g {other}\n"
        "set -as terminal-features ',*:clipboard'\n"
    )
    socket = home / "tmux"
    command = f"{sys.executable} -m acrf_tui.cli --runs {home}/runs"
    # tmux asks the terminal outside before it lets the clipboard through; an xterm may.
    terminal = Terminal(["tmux", "-S", str(socket), "-f", str(config), "new-session", command], LANG="C.UTF-8")
    try:
        terminal.until("paper-defaults", "Start")
        terminal.type("y")
        terminal.until("Copied", "acrf-tui train")
        passed = re.compile(rb"\x1b\]52;c?;([A-Za-z0-9+/=]{20,})(?:\x07|\x1b\\)")
        for _ in range(100):
            if passed.search(terminal.raw):
                break
            terminal._read()
        found = passed.search(terminal.raw)
        assert found is not None, option
        assert base64.b64decode(found[1]).decode().startswith("acrf-tui train /")
    finally:
        terminal.close()
        os.system(f"tmux -S {socket} kill-server 2>/dev/null")


# ---- pictures --------------------------------------------------------------------------------------------------------


async def test_f12_saves_the_screen_and_names_the_file(home: Path) -> None:
    app = AcrfApp(AppOptions(home / "runs"))
    async with app.run_test(size=(100, 30)) as pilot:
        await until(lambda: isinstance(app.screen, LaunchpadScreen))
        await pilot.pause()
        await pilot.press("f12", "P")
        folder = home / "data" / "acrf-tui" / "screenshots"
        await until(lambda: len(list(folder.glob("*.svg"))) == 2)
        pictures = sorted(folder.glob("*.svg"))
        await until(lambda: all(any(p.name in note.message for note in app._notifications) for p in pictures))
        text = pictures[0].read_text()
        assert text.startswith("<svg")
        assert "paper" in text
        assert stat.S_IMODE(pictures[0].stat().st_mode) == 0o600


async def test_a_folder_that_cannot_be_written_is_one_message(home: Path) -> None:
    (home / "file").write_text("")
    settings_file().parent.mkdir(parents=True)
    settings_file().write_text(f"screenshots: {home}/file/shots\n")
    app = AcrfApp(AppOptions(home / "runs"))
    async with app.run_test(size=(100, 30)) as pilot:
        await until(lambda: isinstance(app.screen, LaunchpadScreen))
        await pilot.pause()
        await pilot.press("f12")
        await until(lambda: bool(app._notifications))
        (note,) = app._notifications
        assert f"{home}/file/shots: cannot be written" in note.message
        assert "settings.yaml" in note.message

"""A user's session by keys, in a real terminal, against a real training: start, steer, detach, attach, stop."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from acrf_engine.run.folder import RunFolder
from acrf_engine.run.telemetry import TelemetryReader
from tests.e2e.terminal import Terminal

PROGRAM = str(Path(sys.executable).with_name("acrf-tui"))
LEAVES_ALTERNATE_SCREEN = b"\x1b[?1049l"


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Path]:
    """A folder for runs; nothing that was started in it is left running."""
    yield tmp_path / "runs"
    for folder in (tmp_path / "runs").glob("*"):
        status = RunFolder(folder).read_status()
        if status.supervisor_pid is not None and status.active:
            import os

            os.kill(status.supervisor_pid, signal.SIGTERM)
    shutil.rmtree(tmp_path / "runs", ignore_errors=True)


def events_of(folder: RunFolder) -> list[Any]:
    return TelemetryReader(folder.telemetry).history().events


def test_a_whole_session_by_keys(runs: Path) -> None:
    """Pause, learning rate, checkpoint, detach, attach and stop, each by its key, each visible and journalled."""
    run = RunFolder(runs / "walk")
    app = Terminal([PROGRAM, "demo", "--name", "walk", "--runs", str(runs), "--steps", "100000"])
    try:
        app.until("RUNNING", "step")
        app.type(" ")
        app.until("PAUSED")
        app.type("l")
        app.until("last step used")
        app.type("0.00005\r")
        app.until("5e-05")
        app.type("c")
        app.until("checkpoint saved")
        app.type(" ")
        app.until("RUNNING")
        app.resize(80, 24)
        app.until("RUNNING")
        app.type("q")
        app.until("Detach")
        app.type("d")
        assert app.wait() == 0
        assert LEAVES_ALTERNATE_SCREEN in app.raw
    finally:
        app.close()
    assert run.read_status().state == "running"

    commands = [event.command for event in events_of(run) if event.type == "ack" and event.ok]
    assert commands == ["pause", "set", "checkpoint", "resume"]
    change = next(event for event in events_of(run) if event.type == "ack" and event.command == "set")
    assert (change.key, change.value) == ("learning_rate", 5e-5)

    back = Terminal([PROGRAM, "attach", "walk", "--runs", str(runs)])
    try:
        back.until("RUNNING", "checkpoint saved")
        back.type("q")
        back.until("Detach")
        back.type("s")
        assert back.wait(60.0) == 0
    finally:
        back.close()
    assert run.read_status().state == "stopped"
    newest = json.loads(run.status.read_text(encoding="utf-8"))["last_checkpoint"]
    assert Path(newest, "manifest.json").exists()


def test_a_hang_up_leaves_the_terminal_clean_and_the_training_running(runs: Path) -> None:
    """SIGHUP and SIGTERM to the app restore the terminal; kill -9 costs nothing either; the steps go on."""
    run = RunFolder(runs / "night")
    app = Terminal([PROGRAM, "demo", "--name", "night", "--runs", str(runs), "--steps", "100000"])
    try:
        app.until("RUNNING")
        app.signal(signal.SIGHUP)
        app.wait()
        assert LEAVES_ALTERNATE_SCREEN in app.raw
    finally:
        app.close()
    for number in (signal.SIGTERM, signal.SIGKILL):
        before = run.read_status()
        assert before.state == "running"
        again = Terminal([PROGRAM, "attach", "night", "--runs", str(runs)])
        try:
            again.until("RUNNING")
            again.signal(number)
            again.wait()
            assert (LEAVES_ALTERNATE_SCREEN in again.raw) == (number is signal.SIGTERM)
        finally:
            again.close()
    assert run.read_status().state == "running"

"""Loader processes: they serve the run, end with it, and their death ends it with a message."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from typing import Any

import psutil
import pytest

Cli = Callable[..., subprocess.CompletedProcess[str]]
LOADERS = (
    "--set", "data.num_workers=2", "--set", "data.flip=true", "--set", "data.caption_dropout=0.2",
    "--set", "optimization.ema_decay=0.9", "--set", "scheduler=constant",
)  # fmt: skip
GONE_WITHIN_S = 3


pytestmark = pytest.mark.full_only


def loaders_of(run: Any) -> list[psutil.Process]:
    found = psutil.Process(run.status()["worker_pid"]).children()
    assert len(found) == 2
    return found


def test_a_run_with_loader_processes_pauses_goes_on_and_leaves_none_behind(
    start: Callable[..., Any], cli: Cli, runs: Any
) -> None:
    run = start("loaders", "demo", "--steps", "60", *LOADERS)
    run.until_step(3)
    loaders = loaders_of(run)
    for command in ("pause", "preview", "checkpoint", "resume"):
        assert cli("control", "loaders", command, "--runs", str(runs)).returncode == 0
    assert run.end() == 0, run.words.read_text()
    assert run.steps() == list(range(1, 61))
    assert psutil.wait_procs(loaders, timeout=GONE_WITHIN_S)[1] == []
    assert run.of("warning") == run.of("error") == []


@pytest.fixture(scope="module")
def broken_run(start: Callable[..., Any]) -> Any:
    """A run whose loader processes were killed."""
    run = start("broken", "demo", "--steps", "100000", *LOADERS, "--set", "checkpoint.every=4")
    run.until_step(6)
    for process in loaders_of(run):
        process.kill()
    run.exit_status = run.end()
    return run


def test_killed_loader_processes_end_the_run_with_a_message(broken_run: Any) -> None:
    assert broken_run.exit_status == 1
    last = broken_run.events[-1]
    assert last["type"] == "failed"
    assert "a loader process died" in last["error"]
    assert "lower data.num_workers from 2 or set it to 0, then resume" in last["error"]


def test_the_run_then_goes_on_without_them(broken_run: Any, start: Callable[..., Any]) -> None:
    saved = broken_run.of("checkpoint")[-1]["step"]
    resumed = start("broken", "resume", "broken", "--steps", str(saved + 3), "--set", "data.num_workers=0")
    assert resumed.end() == 0, resumed.words.read_text()
    assert resumed.steps() == [saved + 1, saved + 2, saved + 3]
    again = {body["step"]: body["loss"] for body in broken_run.of("step")}
    assert all(again.get(body["step"], body["loss"]) == body["loss"] for body in resumed.of("step"))


def test_loader_processes_end_with_a_killed_worker(start: Callable[..., Any]) -> None:
    run = start("killed-over-loaders", "demo", "--steps", "100000", *LOADERS)
    run.until_step(3)
    loaders = loaders_of(run)
    os.kill(run.status()["worker_pid"], signal.SIGKILL)
    assert psutil.wait_procs(loaders, timeout=GONE_WITHIN_S)[1] == []
    assert run.end() == 1
    assert "SIGKILL" in run.events[-1]["error"]

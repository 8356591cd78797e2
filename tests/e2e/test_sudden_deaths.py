"""Processes that are killed without a word: the run says so, and goes on from its last checkpoint."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

Cli = Callable[..., subprocess.CompletedProcess[str]]


pytestmark = pytest.mark.full_only


def state_of(cli: Cli, runs: Path, name: str) -> dict[str, Any]:
    rows = json.loads(cli("runs", "--json", "--runs", str(runs)).stdout)
    return next(row for row in rows if row["name"] == name)


def test_a_killed_worker_is_told_of_started_again_if_wanted_and_resumed(
    start: Callable[..., Any], cli: Cli, runs: Path
) -> None:
    run = start(
        "killed", "demo", "--steps", "100000", "--set", "scheduler=constant", "--set", "checkpoint.every=4",
        "--set", "restarts=1",
    )  # fmt: skip
    run.until_step(6)
    saved = run.of("checkpoint")[-1]["step"]
    os.kill(run.status()["worker_pid"], signal.SIGKILL)

    # `restarts: 1`: once it is started again, from its newest checkpoint.
    warning = run.until(lambda body: body["type"] == "warning")
    assert "SIGKILL" in warning["message"]
    plan = run.until(lambda body: body["type"] == "plan")
    assert plan["start_step"] >= saved
    assert run.until(lambda body: body["type"] == "step")["step"] == plan["start_step"] + 1
    run.until_step(max(run.steps()) + 5)
    os.kill(run.status()["worker_pid"], signal.SIGKILL)

    # The second time it stays down, says why, and can be resumed.
    assert run.end() == 1
    last = run.events[-1]
    assert (last["type"], last["kind"]) == ("failed", "interrupted")
    assert "SIGKILL" in last["error"]
    assert "resume" in run.words.read_text()
    row = state_of(cli, runs, "killed")
    assert row["state"] == "interrupted"
    assert "SIGKILL" in row["error"]

    total = run.of("checkpoint")[-1]["step"] + 3
    resumed = start("killed", "resume", "killed", "--steps", str(total))
    assert resumed.end() == 0, resumed.words.read_text()
    first = resumed.of("plan")[0]["start_step"]
    assert resumed.steps() == list(range(first + 1, total + 1))


@pytest.fixture(scope="module")
def orphaned_run(start: Callable[..., Any]) -> Any:
    """A run whose supervisor was killed in the middle of training, and whose worker has left since."""
    run = start("orphan", "demo", "--steps", "100000", "--set", "scheduler=constant")
    run.until_step(5)
    status = run.status()
    worker = psutil.Process(status["worker_pid"])
    os.kill(status["supervisor_pid"], signal.SIGKILL)
    run.exit_status = run.end()
    worker.wait(timeout=60)
    return run


def test_when_the_supervisor_is_killed_the_worker_saves_and_leaves(orphaned_run: Any, cli: Cli, runs: Path) -> None:
    assert orphaned_run.exit_status == 1
    assert "interrupted" in orphaned_run.words.read_text()
    row = state_of(cli, runs, "orphan")
    assert row["state"] == "interrupted"
    (saved,) = (orphaned_run.folder / "checkpoints").glob("step-*")
    assert int(saved.name.removeprefix("step-")) >= orphaned_run.steps()[-1]
    assert row["step"] == int(saved.name.removeprefix("step-"))


def test_after_that_it_goes_on_and_no_seq_is_given_twice(
    orphaned_run: Any, start: Callable[..., Any], runs: Path
) -> None:
    folder = Path(shutil.copytree(orphaned_run.folder, runs / "adopted"))
    (saved,) = (folder / "checkpoints").glob("step-*")
    step = int(saved.name.removeprefix("step-"))
    resumed = start("adopted", "resume", "adopted", "--steps", str(step + 2))
    assert resumed.end() == 0, resumed.words.read_text()
    assert resumed.steps() == [step + 1, step + 2]
    assert resumed.events[0]["seq"] > orphaned_run.events[-1]["seq"]

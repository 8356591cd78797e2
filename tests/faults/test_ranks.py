"""Several processes train one run, and one of them dies."""

from __future__ import annotations

import os
import signal
from functools import partial
from typing import Any

import pytest
from injections import at_step
from nursery import Nursery

TWO: dict[str, Any] = {"distributed": {"num_processes": 2}, "checkpoint": {"every": 2}}


def raise_in_rank_1(trainer: Any) -> None:
    if trainer.ranks.rank == 1:
        raise RuntimeError("this rank has had enough")


@pytest.mark.fault("rank: killed (kill -9)")
def test_a_killed_rank_ends_the_run_by_name_and_it_goes_on_from_its_checkpoint(nursery: Nursery, row: Any) -> None:
    """The message names the rank and how it died, no process is left, and the resumed run ends as any other."""
    run = nursery.start(steps=60, **TWO)
    run.until_step(5)
    pid = run.recorded()["extra"]["ranks"]["1"]
    os.kill(pid, signal.SIGKILL)
    assert run.end() == 1
    assert run.recorded()["state"] == "interrupted"
    assert f"rank 1 (pid {pid})" in run.recorded()["error"]
    assert "SIGKILL" in run.recorded()["error"]
    done = run.checkpoints()[-1]
    run.start(steps=done + 4)
    assert run.end() == 0, run.log()
    assert run.steps()[-4:] == [*range(done + 1, done + 5)]
    row.lost_steps = 2


@pytest.mark.full_only
@pytest.mark.fault("rank: an error in one of them")
def test_an_error_in_one_rank_is_told_with_its_traceback(nursery: Nursery, row: Any) -> None:
    """The run fails with the rank's number and its own traceback."""
    run = nursery.start(steps=60, **TWO, inject=partial(at_step, 4, raise_in_rank_1))
    assert run.end() == 1
    assert run.recorded()["state"] == "failed"
    assert "rank 1" in run.recorded()["error"]
    assert "this rank has had enough" in run.recorded()["error"]
    (error,) = run.of("error")
    assert "raise_in_rank_1" in error["traceback"]

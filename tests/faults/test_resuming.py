"""Resumes at bad moments, or asked for what cannot be: each is refused in words, or goes on exactly."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from injections import poison_the_dice
from nursery import Child, Nursery, assert_golden

from acrf_engine.run.client import launch
from acrf_engine.run.folder import RunError
from acrf_engine.run.resuming import prepare_resume


@pytest.mark.fault("Ten supervisors for one run")
def test_of_two_resumes_at_the_same_moment_one_is_told_who_holds_the_run(nursery: Nursery, row: Any) -> None:
    """The loser is refused, naming the winner; it does not take the winner's run for its own."""
    run = nursery.start(steps=3)
    assert run.end() == 0
    prepare_resume(run.folder, steps=100_000)
    both_ready = threading.Barrier(2)

    def resume() -> str:
        both_ready.wait()
        try:
            launch(run.folder, "--share").close()
        except RunError as error:
            return str(error)
        return "started"

    with ThreadPoolExecutor(2) as threads:
        said = [one.result() for one in [threads.submit(resume), threads.submit(resume)]]
    holder = run.recorded()["supervisor_pid"]
    try:
        assert sorted(said) == sorted(
            ["started", f"run {run.folder.name} could not start: run {run.folder.name} is already held by "
             f"supervisor {holder}"]
        )  # fmt: skip
    finally:
        assert run.command("stop").ok
        Child.wait_for(lambda: not run.folder.is_held(), "the winner has ended")


@pytest.mark.fault("A status.json that a power cut left empty")
def test_a_run_whose_status_is_lost_goes_on_from_its_checkpoints(nursery: Nursery, golden: Child, row: Any) -> None:
    """It is listed as unreadable, with the remedy; a resume sets the file aside and repeats the straight run."""
    run = nursery.start(steps=30)
    run.until_step(12)
    run.kill_worker()
    run.end()
    run.folder.status.write_text("")
    with pytest.raises(RunError, match=f"acrf-tui resume {run.folder.name}"):
        run.folder.read_status()
    prepare_resume(run.folder)
    assert run.recorded()["step"] == run.newest_checkpoint() >= 10
    run.start(inject=poison_the_dice)
    assert run.end() == 0
    assert_golden(run, golden, 30)
    assert (run.folder.path / "status.json.damaged").exists()


@pytest.mark.fault("A status.json that a power cut left empty")
def test_a_run_without_status_and_checkpoint_is_refused_as_it_is(nursery: Nursery, row: Any) -> None:
    """There is nothing to go on from, and nothing of it is changed."""
    run = nursery.create()
    run.folder.status.write_text("")
    with pytest.raises(RunError, match=r"status\.json: cannot be read"):
        prepare_resume(run.folder)
    assert run.folder.status.read_text() == ""


@pytest.mark.fault("A total below what is reached")
def test_a_resume_cannot_end_a_run_before_where_it_is(nursery: Nursery, row: Any) -> None:
    """Refused with the config as it was; ending it where it is gives the final LoRA."""
    run = nursery.start(steps=10_000)
    run.until_step(7)
    assert run.command("stop").ok
    run.end()
    at, config = run.newest_checkpoint(), run.folder.config.read_bytes()
    with pytest.raises(RunError, match=f"at step {at} already and cannot end at {at - 1}"):
        prepare_resume(run.folder, steps=at - 1)
    assert run.folder.config.read_bytes() == config
    prepare_resume(run.folder, steps=at)
    assert run.start().end() == 0
    assert run.status()["state"] == "finished"
    assert run.folder.final_lora().is_file()

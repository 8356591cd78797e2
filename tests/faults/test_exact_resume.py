"""A run that was interrupted goes on exactly where its checkpoint stands: the same numbers, the same bytes."""

from __future__ import annotations

import dataclasses
import functools
import json
import signal
from collections.abc import Callable
from typing import Any

import pytest
from injections import poison_the_dice, short_back_off
from nursery import Child, Nursery, assert_golden, assert_repeats

from acrf_engine.run.replay import create_replay
from acrf_engine.run.resuming import prepare_resume

EPOCH = 16
"""The demo's pictures, so steps of one epoch."""


def kill_the_worker(run: Child) -> None:
    run.kill_worker(signal.SIGKILL)


def kill_the_supervisor(run: Child) -> None:
    run.kill_supervisor(signal.SIGKILL)


def terminate_the_supervisor(run: Child) -> None:
    run.kill_supervisor(signal.SIGTERM)


def terminate_the_worker(run: Child) -> None:
    run.kill_worker(signal.SIGTERM)


def stop(run: Child) -> None:
    assert run.command("stop").ok


def pause_then_kill(run: Child) -> None:
    assert run.command("pause").ok
    run.kill_worker(signal.SIGKILL)


DEATHS = [
    kill_the_worker,
    *(
        pytest.param(die, marks=pytest.mark.full_only)
        for die in (kill_the_supervisor, terminate_the_supervisor, terminate_the_worker, stop, pause_then_kill)
    ),
]


def test_two_straight_runs_are_equal_and_the_global_dice_have_no_part_in_it(nursery: Nursery, golden: Child) -> None:
    """Every number of every step is the same in a second run whose global random generators stand elsewhere."""
    run = nursery.start(inject=poison_the_dice, steps=20)
    assert run.end() == 0
    assert_golden(run, golden, 20)
    assert run.members() == []


@pytest.mark.fault("Resume after any death or stop, bit for bit")
@pytest.mark.parametrize("die", DEATHS)
def test_a_resumed_run_repeats_the_straight_one(
    nursery: Nursery, golden: Child, row: Any, die: Callable[[Child], None]
) -> None:
    """After the resume every number, and the last LoRA and optimizer, are those of a run that nothing happened to."""
    run = nursery.start(steps=30)
    run.until_step(12)
    die(run)
    run.end()
    Child.wait_for(lambda: run.members() == [], "the worker has left")
    told = max(run.trace())
    run.start(inject=poison_the_dice)
    started = run.until_type("plan")["start_step"]
    assert run.end() == 0, run.log()
    assert started >= 10
    row.lost_steps = max(0, told - started)
    assert row.lost_steps <= 5
    # A supervisor that is killed loses what it had not written down; the worker saves the steps all the same.
    untold = range(told + 1, started + 1)
    assert die is kill_the_supervisor or not untold
    assert_golden(run, golden, 30, untold)


@pytest.mark.full_only
@pytest.mark.fault("Resume after any death or stop, bit for bit")
def test_a_resume_of_a_resume_at_epoch_edges_and_at_the_last_step(nursery: Nursery, golden: Child, row: Any) -> None:
    """Killed just after the checkpoint of an epoch's end, again one step later, and at the last step: all the same."""
    run = nursery.create(steps=2 * EPOCH + 3, checkpoint={"every": 1})
    total = 2 * EPOCH + 3
    stops = (EPOCH, EPOCH + 1, 2 * EPOCH, total - 1)
    row.trials = len(stops)
    for step in stops:
        run.start(inject=poison_the_dice)
        run.until(lambda body, step=step: body["type"] == "checkpoint" and body["step"] >= step)
        run.kill_worker()
        run.end()
    run.start(inject=poison_the_dice)
    assert run.end() == 0, run.log()
    assert_repeats(run, golden, total)


@pytest.mark.full_only
@pytest.mark.fault("Resume after any death or stop, bit for bit")
def test_a_finished_run_extended_is_the_longer_run(nursery: Nursery, golden: Child, row: Any) -> None:
    """A run of 15 steps that finished and was extended to 30 repeats the run of 30."""
    run = nursery.start(steps=15)
    assert run.end() == 0
    run.start(inject=poison_the_dice, steps=30)
    assert run.until_type("plan")["start_step"] == 15
    assert run.end() == 0
    assert_golden(run, golden, 30)


@pytest.mark.fault("Resume after any death or stop, bit for bit")
@pytest.mark.parametrize("ramp", [12, pytest.param(0, marks=pytest.mark.full_only)])
def test_a_live_change_outlives_a_death(nursery: Nursery, golden: Child, row: Any, ramp: int) -> None:
    """`set learning_rate` before the checkpoint (in mid-ramp) goes on after a kill as in an uninterrupted replay."""
    run = nursery.start(steps=40)
    run.until_step(6)
    ack = run.command("set", key="learning_rate", value="3e-4", ramp=ramp)
    assert ack.ok, ack.message
    run.until_step(ack.step + 3)
    saved = run.command("checkpoint")
    assert saved.ok
    run.until_step(saved.step + 2)
    run.kill_worker()
    run.end()
    run.start(inject=poison_the_dice)
    assert run.end() == 0

    straight = nursery.create(steps=40)
    change = {"step": ack.step, "key": "learning_rate", "value": 3e-4, "ramp": ramp}
    (straight.folder.path / "replay.json").write_text(json.dumps({"changes": [change], "until": 40}))
    assert straight.start().end() == 0
    assert run.trace() == straight.trace()
    assert run.digests(40) == straight.digests(40)
    assert run.trace()[ack.step] == golden.trace()[ack.step]
    assert run.trace()[ack.step + 1] != golden.trace()[ack.step + 1]


@pytest.mark.fault("Resume after any death or stop, bit for bit")
def test_a_run_that_was_extended_and_changed_on_resuming_is_replayed_to_the_same_weights(
    nursery: Nursery, row: Any
) -> None:
    """Its cosine schedule planned for 8 steps, then for 16; `resume --set` gave another learning rate. The replay takes
    every step with the rate that the run had then, and ends with the same bytes."""
    run = nursery.start(steps=8, scheduler="cosine", learning_rate=1e-3)
    assert run.end() == 0
    prepare_resume(run.folder, ["learning_rate=3e-4"], steps=16)
    assert run.start().end() == 0

    again = Child(create_replay(run.folder, nursery.runs, "again"))
    nursery.children.append(again)
    assert again.start(inject=poison_the_dice).end() == 0
    assert again.trace() == run.trace()
    assert again.digests(16) == run.digests(16)


@pytest.mark.fault("Resume after any death or stop, bit for bit")
def test_what_was_set_live_after_a_resume_outlives_a_death(nursery: Nursery, row: Any) -> None:
    """`resume --set` of a learning rate holds until the first checkpoint; what is set live after it wins from then on,
    also where the supervisor starts the worker again by itself."""
    run = nursery.start(steps=5)
    assert run.end() == 0
    prepare_resume(run.folder, ["learning_rate=3e-4", "restarts=1"], steps=2000)
    run.start(inject=short_back_off)
    assert run.until_type("step")["lr"] == 3e-4
    assert run.command("set", key="learning_rate", value="7e-5").ok
    saved = run.command("checkpoint")
    assert saved.ok
    run.until_step(saved.step + 1)
    run.kill_worker()
    assert run.until_type("plan")["start_step"] >= saved.step
    assert run.until_type("step")["lr"] == 7e-5
    assert run.command("stop").ok
    run.end()


@pytest.mark.fault("Resume after any death or stop, bit for bit")
def test_what_a_resume_was_given_outlives_a_death_before_its_first_checkpoint(nursery: Nursery, row: Any) -> None:
    """Given back to what the config says, against a live change: the next resume, which gives nothing, keeps to it."""
    run = nursery.start(steps=2000, learning_rate=1e-3)
    run.until_step(2)
    assert run.command("set", key="learning_rate", value="7e-5").ok
    assert run.command("stop").ok
    run.end()
    prepare_resume(run.folder, ["learning_rate=1e-3", "checkpoint.every=1000"])
    run.start()
    assert run.until_type("step")["lr"] == 1e-3
    run.kill_worker()
    run.end()
    prepare_resume(run.folder)
    run.start()
    assert run.until_type("step")["lr"] == 1e-3
    assert run.command("stop").ok
    run.end()


def forget(part: str) -> None:
    """A resume that leaves out one part of the state; what the comparison above has to notice."""
    from acrf_engine.training.saved_state import Saved
    from acrf_engine.training.trainer import Trainer

    restore = Trainer._restore

    def forgetful(self: Trainer, saved: Saved) -> None:
        snapshot = saved.snapshot
        if part == "position":
            state = dataclasses.replace(saved.state, micro_step=saved.state.micro_step + 1)
            saved = dataclasses.replace(saved, state=state)
        elif part == "moments":
            snapshot.optimizer["state"] = {}
        elif part == "one bit of the LoRA":
            name = next(iter(snapshot.lora))
            flat = snapshot.lora[name].view(-1)
            flat[0] = flat[0].nextafter(flat[0] + 1)
        restore(self, saved)

    Trainer._restore = forgetful


@pytest.mark.full_only
@pytest.mark.parametrize("part", ["position", "moments", "one bit of the LoRA"])
def test_the_comparison_notices_what_is_left_out(nursery: Nursery, golden: Child, part: str) -> None:
    """The same comparison fails where the resumed run forgets a part of its state, down to one bit of one weight."""
    run = nursery.start(steps=15)
    assert run.end() == 0
    run.start(inject=functools.partial(forget, part), steps=30)
    assert run.end() == 0
    with pytest.raises(AssertionError):
        assert_golden(run, golden, 30)

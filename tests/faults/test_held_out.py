"""The validation of a run that is interrupted: by a pause, by a stop, by a death."""

from __future__ import annotations

import time
from typing import Any

import pytest
from injections import poison_the_dice
from nursery import Body, Child, Nursery, assert_golden

from acrf_engine.run.telemetry import TelemetryReader
from acrf_tui.state import RunState

HELD_OUT = {"validation": {"holdout": 4, "every": 5}}
TOTAL = 24


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run with validation that nothing happens to."""
    made = Nursery(tmp_path_factory.mktemp("straight"))
    run = made.start(steps=TOTAL, checkpoint={"every": 5, "keep": 1000}, **HELD_OUT)
    try:
        assert run.end() == 0, run.log()
        yield run
    finally:
        made.abandon()


def slow_validation() -> None:
    """Every run of the model on held-out pictures takes 50 ms more: time to act within a validation."""
    from acrf_engine.training import validation

    measure = validation.held_out_losses

    def slowly(*arguments: Any) -> Any:
        time.sleep(0.05)
        return measure(*arguments)

    validation.held_out_losses = slowly


def curve(run: Child) -> dict[float, str]:
    """What an app that attaches now draws, exactly."""
    state = RunState()
    state.load(TelemetryReader(run.folder.telemetry).history())
    return {step: loss.hex() for step, loss in zip(*state.validation, strict=True)}


def losses(bodies: list[Body]) -> dict[int, tuple[str, list[str]]]:
    return {body["step"]: (body["loss"].hex(), [loss.hex() for loss in body["losses"]]) for body in bodies}


def in_validation(after: int) -> Any:
    """Once two pictures of a validation after `after` updates are done."""
    seen = {"step": 0}

    def wanted(body: Body) -> bool:
        seen["step"] = body["step"] if body["type"] == "step" else seen["step"]
        return (
            body["type"] == "progress" and body["phase"] == "validating" and body["done"] == 2 and seen["step"] >= after
        )

    return wanted


def test_a_run_tells_its_validation_at_the_steps_that_are_due(straight: Child) -> None:
    """Before the first step, every fifth, and after the last; each is in the history."""
    told = straight.of("validation")
    assert [body["step"] for body in told] == [0, 5, 10, 15, 20, TOTAL]
    assert {body["pictures"] for body in told} == {4}
    assert curve(straight) == {body["step"]: body["loss"].hex() for body in told}
    assert straight.of("plan")[0]["pictures"] == 12
    assert straight.of("plan")[0]["held_out"] == 4


@pytest.mark.fault("Resume after any death or stop, bit for bit")
def test_a_resumed_run_validates_as_the_straight_one(nursery: Nursery, straight: Child, row: Any) -> None:
    """Killed between its checkpoints: every number, every validation and the last LoRA are the straight run's; what was
    measured after the checkpoint is on the curve once."""
    run = nursery.start(steps=TOTAL, checkpoint={"every": 8, "keep": 1000}, **HELD_OUT)
    run.until(lambda body: body["type"] == "validation" and body["step"] == 15)
    run.kill_worker()
    run.end()
    before = losses(run.of("validation"))
    run.start(inject=poison_the_dice)
    assert run.end() == 0, run.log()
    row.lost_steps = 0
    assert run.start_step() == 8
    assert_golden(run, straight, TOTAL)
    after = losses(run.of("validation"))
    assert list(after) == [10, 15, 20, TOTAL]
    assert {**before, **after} == losses(straight.of("validation"))
    assert curve(run) == curve(straight)


def test_pause_answers_within_a_validation_and_it_goes_on_from_there(nursery: Nursery, straight: Child) -> None:
    """Paused between two pictures: no event comes while paused, after `resume` the same loss as ever."""
    run = nursery.start(inject=slow_validation, steps=TOTAL, **HELD_OUT)
    run.until(in_validation(5))
    ack = run.command("pause")
    assert (ack.ok, ack.step) == (True, 5)
    saved = run.command("checkpoint")
    assert saved.ok, saved.message
    run.until_type("checkpoint")
    told = losses(run.of("validation"))
    assert list(told) == [0]
    assert run.command("resume").ok
    assert run.end() == 0
    assert losses(run.of("validation")) == losses(straight.of("validation"))
    assert_golden(run, straight, TOTAL)


@pytest.mark.full_only
def test_a_stop_abandons_a_validation_and_the_resumed_run_makes_up_for_it(nursery: Nursery, straight: Child) -> None:
    """`stop` is answered within the validation; the run goes on from that step, and measures there first."""
    run = nursery.start(inject=slow_validation, steps=TOTAL, **HELD_OUT)
    run.until(in_validation(10))
    ack = run.command("stop")
    assert (ack.ok, ack.step) == (True, 10)
    run.end()
    assert run.status()["state"] == "stopped"
    assert [body["step"] for body in run.of("validation")] == [0, 5]
    run.start(inject=poison_the_dice)
    assert run.end() == 0
    assert run.start_step() == 10
    assert [body["step"] for body in run.of("validation")] == [10, 15, 20, TOTAL]
    assert curve(run) == curve(straight)
    assert_golden(run, straight, TOTAL)


def break_validation() -> None:
    from acrf_engine.training import validation

    def fail(*_: Any) -> Any:
        raise RuntimeError("the model does not like these pictures")

    validation.held_out_losses = fail


def test_a_validation_that_fails_is_told_and_the_training_goes_on(nursery: Nursery, straight: Child) -> None:
    run = nursery.start(inject=break_validation, steps=TOTAL, **HELD_OUT)
    assert run.end() == 0
    warnings = [body["message"] for body in run.of("warning")]
    assert len(warnings) == 6
    assert all("validation failed, training goes on: the model does not like" in told for told in warnings), warnings
    assert run.of("validation") == []
    assert_golden(run, straight, TOTAL)


def weights_that_give_nan() -> None:
    from acrf_engine.training import validation

    measure = validation.held_out_losses
    validation.held_out_losses = lambda *arguments: measure(*arguments) * float("nan")


def test_a_loss_that_is_not_finite_is_told_as_such(nursery: Nursery) -> None:
    """null with a flag, NaN on the curve, and a warning: never a number."""
    run = nursery.start(inject=weights_that_give_nan, steps=2, **HELD_OUT)
    assert run.end() == 0
    for body in run.of("validation"):
        assert body["loss"] is None
        assert "loss" in body["non_finite"]
    assert [body["message"] for body in run.of("warning")] == [
        "the validation loss is not finite: the weights give NaN or infinite numbers on held-out pictures"
    ] * 2
    assert curve(run) == {0: "nan", 2: "nan"}

"""Numbers that are not finite, put into the real training step: no update is made of them, none is ever saved."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from injections import at_step, poison_the_dice, spoil
from nursery import Child, Nursery, answer_of

KINDS = ("loss", "Char", "gradient")
VALUES = (math.nan, math.inf)


QUICK = ("rollback-gradient-inf",)


def every_combination() -> list[Any]:
    """Each policy with each kind and value; the quick run has one of them."""
    cases = [(policy, kind, value) for policy in ("skip", "rollback", "stop") for kind in KINDS for value in VALUES]
    return [
        pytest.param(*case, id=name, marks=() if name in QUICK else pytest.mark.full_only)
        for case in cases
        for name in ["-".join(map(str, case))]
    ]


def not_finite(folder: str) -> list[str]:
    """Every tensor with NaN or infinity in any safetensors file of a run."""
    import torch
    from safetensors.torch import load_file

    return [
        f"{path}: {name}"
        for path in Path(folder).rglob("*.safetensors")
        for name, tensor in load_file(path).items()
        if tensor.is_floating_point() and not torch.isfinite(tensor).all()
    ]


@pytest.mark.fault("NaN and infinity in loss and gradient")
@pytest.mark.parametrize(("policy", "kind", "value"), every_combination())
def test_a_number_that_is_not_finite(
    nursery: Nursery,
    golden: Child,
    references: Callable[[str], Child],
    row: Any,
    policy: str,
    kind: str,
    value: float,
) -> None:
    """At the twelfth update: the message names the step, what is not finite and (for a loss) the picture. No update is
    made of it: `skip` goes on as a run that leaves those micro-batches out, `rollback` as one that goes on from the
    checkpoint with half the rate, `stop` fails and resumes as the straight run. No file ever holds such a number."""
    run = nursery.start(
        steps=20,
        safety={"non_finite": policy},
        learning_rate=1e-4,
        inject=partial(at_step, 11, partial(spoil, kind, value), times=1),
    )
    code = run.end()
    told = (run.of("error") if policy == "stop" else run.of("warning"))[0]["message"]
    assert "step 12" in told
    component = {"loss": "loss is", "Char": "Char is", "gradient": "gradient norm is"}[kind]
    assert component in told
    assert (".png" in told) == (kind != "gradient")
    assert answer_of(not_finite, str(run.folder.path)) == []
    if policy == "stop":
        assert code == 1
        assert run.status()["state"] == "failed"
        assert run.newest_checkpoint() == 10
        run.start(inject=poison_the_dice)
        assert run.end() == 0
    else:
        assert code == 0
        assert policy == "skip" or "learning_rate 5e-05" in told
    row.lost_steps = 0 if policy == "skip" else 1
    reference = golden if policy == "stop" else references(policy)
    expected = reference.trace()
    assert run.trace() == {step: expected[step] for step in range(1, 21)}
    assert run.digests(20) == reference.digests(20)


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Child]]:
    """By policy: a run that the same thing is done to by other means, and that never sees such a number."""
    made = Nursery(tmp_path_factory.mktemp("references"))

    @functools.cache
    def reference(policy: str) -> Child:
        run = made.create(steps=20)
        if policy == "rollback":
            change = {"step": 10, "key": "learning_rate", "value": 5e-5, "ramp": 0}
            (run.folder.path / "replay.json").write_text(json.dumps({"changes": [change], "until": 20}))
        run.start(inject=partial(at_step, 11, leave_out, times=1) if policy == "skip" else None)
        assert run.end() == 0
        return run

    yield reference
    made.abandon()


def leave_out(trainer: Any) -> None:
    trainer.skip_step()


@pytest.mark.fault("NaN and infinity in loss and gradient")
@pytest.mark.parametrize("policy", ["skip", pytest.param("rollback", marks=pytest.mark.full_only)])
def test_too_many_in_a_row_stop_the_run(nursery: Nursery, row: Any, policy: str) -> None:
    """From step 12 on every loss is NaN: after `non_finite_limit` of them the run fails, and says so. The newest
    checkpoint is the one before, and holds only finite numbers."""
    run = nursery.start(
        steps=20,
        safety={"non_finite": policy, "non_finite_limit": 3},
        inject=partial(spoil_from, 11),
    )
    assert run.end() == 1
    assert len(run.of("warning")) == 3
    assert run.status()["state"] == "failed"
    assert "3 times in a row" in run.status()["error"]
    assert max(run.steps()) == 11
    assert run.newest_checkpoint() == 10
    assert answer_of(not_finite, str(run.folder.path)) == []
    row.trials = 4


def spoil_from(step: int) -> None:
    """Every update after `step` updates has a loss of NaN."""
    from acrf_engine.training.trainer import Trainer

    train_step = Trainer.train_step

    def acting(self: Trainer) -> Any:
        if self.step >= step or getattr(self, "spoilt", False):
            self.spoilt = True  # also after a rollback
            spoil("loss", math.nan, self)
        return train_step(self)

    Trainer.train_step = acting


@pytest.mark.fault("NaN and infinity in loss and gradient")
@pytest.mark.full_only
def test_weights_that_are_not_finite_are_never_saved(nursery: Nursery, golden: Child, row: Any) -> None:
    """A weight of the LoRA becomes NaN between two updates (a broken card): the checkpoint is refused, the run ends or
    warns, and the newest checkpoint is a good one that the run resumes from."""
    run = nursery.start(steps=20, inject=partial(at_step, 11, spoil_a_weight, times=1))
    run.end()
    assert run.newest_checkpoint() == 10
    assert answer_of(not_finite, str(run.folder.path)) == []
    run.start(inject=poison_the_dice)
    assert run.end() == 0
    expected = golden.trace()
    assert run.trace() == {step: expected[step] for step in range(1, 21)}
    row.lost_steps = 1


def spoil_a_weight(trainer: Any) -> None:
    import torch

    with torch.no_grad():
        trainer.prepared.trainable[0].view(-1)[3] = math.nan

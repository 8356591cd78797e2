"""Several processes train one LoRA: the same weights everywhere, and those of one process with all their pictures."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exactly import trace, train
from PIL import Image
from ranks import everything_of, together

from acrf_engine.config import RunConfig
from acrf_engine.method.part import Part
from acrf_engine.protocol import Step

STEPS = 4
BASE: dict[str, Any] = {"steps": STEPS, "gradient_accumulation": 2, "turbo_steps": 6, "checkpoint": {"keep": 100}}
EXTRAS: dict[str, Any] = {
    "data": {"flip": True, "caption_dropout": 0.5},
    "optimization": {"ema_decay": 0.9},
    "validation": {"holdout": 1},
}
TWO: dict[str, Any] = {"distributed": {"num_processes": 2}}


@pytest.fixture(scope="module")
def seven_pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five of one shape and two of others: a batch of four always ends a bucket short, and two have one picture."""
    folder = tmp_path_factory.mktemp("seven")
    for number in range(7):
        dice = np.random.default_rng(number)
        size = (64, 64) if number < 5 else (64, 128) if number == 5 else (128, 64)
        pixels = dice.integers(0, 255, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text("picture " + "of noise " * number, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def run(make_config: Callable[..., RunConfig], seven_pictures: Path) -> Callable[..., RunConfig]:
    return lambda **values: make_config(**{**BASE, "dataset": str(seven_pictures), "resolution": 64, **values})


def whole_run(trainer: Any) -> dict[str, Any]:
    """Rank 0: train to the end, validate, and save a checkpoint."""
    from acrf_engine.training.validation import Validator

    before = Validator(trainer).measure(lambda: None).losses if trainer.prepared.held_out.examples else []
    steps = train(trainer, STEPS)
    trainer.save_checkpoint()
    after = Validator(trainer).measure(lambda: None).losses if trainer.prepared.held_out.examples else []
    return {"steps": steps, "end": everything_of(trainer), "validated": [*before, *after]}


@pytest.fixture(scope="module", params=["AdamW", "everything"])
def pair(
    request: pytest.FixtureRequest, run: Callable[..., RunConfig], tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[Any], dict[str, Any]]:
    """The same training by two processes with two pictures each, and by one with four."""
    extras = EXTRAS if request.param == "everything" else {}
    home = tmp_path_factory.mktemp("pair")
    two = together(run(batch_size=2, **extras, **TWO), home / "two", whole_run)
    one = together(run(batch_size=4, **extras), home / "one", whole_run)[0]
    return two, one


def test_both_ranks_have_the_same_weights_to_the_last_bit(pair: Any) -> None:
    (leader, follower), _ = pair
    assert leader["end"].keys() == follower.keys()
    assert all(np.array_equal(leader["end"][name], follower[name]) for name in follower)


def test_two_processes_train_what_one_with_twice_the_batch_trains(pair: Any) -> None:
    """Sums are made in another order, so not bit for bit: a missing synchronisation is off by a whole update."""
    (leader, _), one = pair
    for ours, theirs in zip(leader["steps"], one["steps"], strict=True):
        assert (ours.anchors, ours.sigmas, ours.weights, ours.epoch) == (
            theirs.anchors, theirs.sigmas, theirs.weights, theirs.epoch,
        )  # fmt: skip
        assert ours.losses == pytest.approx(theirs.losses, rel=1e-4)
        assert (ours.loss, ours.loss_balanced) == pytest.approx((theirs.loss, theirs.loss_balanced), rel=1e-4)
        assert ours.grad_norm == pytest.approx(theirs.grad_norm, rel=1e-3)
    weights = [name for name in one["end"] if name.startswith(("lora", "average"))]
    assert any(np.abs(one["end"][name]).max() > 1e-4 for name in weights if "lora_B" in name)
    for name in weights:
        assert leader["end"][name] == pytest.approx(one["end"][name], abs=3e-5)


def test_the_deck_is_dealt_across_ranks_without_repeats(pair: Any) -> None:
    """Every six draws of both processes together hold each of the six anchors once."""
    (leader, _), _ = pair
    drawn = [anchor for step in leader["steps"] for anchor in step.anchors]
    whole = len(drawn) // 6 * 6
    assert whole >= 12
    assert all(sorted(drawn[start : start + 6]) == list(range(6)) for start in range(0, whole, 6))


def test_the_held_out_loss_is_that_of_one_process(pair: Any) -> None:
    (leader, _), one = pair
    assert leader["validated"] == pytest.approx(one["validated"], rel=1e-3)


def test_every_picture_is_dealt_to_exactly_one_process_and_none_has_nothing_to_do() -> None:
    for processes in range(1, 9):
        for whole in range(1, 20):
            parts = [Part.of(whole, rank, processes) for rank in range(processes)]
            dealt = Counter(place for part in parts if not part.idle for place in range(part.start, part.stop))
            assert dealt == Counter(range(whole))
            assert all(part.stop > part.start for part in parts)
            assert max(part.stop - part.start for part in parts) <= math.ceil(whole / processes)


def first_half(trainer: Any) -> list[Step]:
    steps = train(trainer, STEPS // 2)
    trainer.save_checkpoint()
    return steps


def second_half(trainer: Any) -> dict[str, Any]:
    assert trainer.step == STEPS // 2
    return {"steps": train(trainer, STEPS // 2), "end": everything_of(trainer)}


def test_a_run_of_two_processes_that_is_resumed_is_the_run_that_was_never_interrupted(
    run: Callable[..., RunConfig], tmp_path: Path, pair: Any, request: pytest.FixtureRequest
) -> None:
    extras = EXTRAS if "everything" in request.node.name else {}
    (straight, _), _ = pair
    config = run(batch_size=2, **extras, **TWO)
    steps = together(config, tmp_path / "run", first_half)[0]
    resumed, follower = together(config, tmp_path / "run", second_half)
    assert trace([*steps, *resumed["steps"]]) == trace(straight["steps"])
    for name, value in straight["end"].items():
        assert np.array_equal(resumed["end"][name], value)
        assert np.array_equal(follower[name], value)

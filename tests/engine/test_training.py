"""The training loop on the tiny model: it learns, repeats bit for bit, goes on exactly, and refuses what it must."""

from __future__ import annotations

import math
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from acrf_engine.data.batches import collate
from acrf_engine.method.step import acrf_micro_step
from acrf_engine.model import lora
from acrf_engine.model.zimage import velocity
from acrf_engine.protocol import Step
from acrf_engine.training.checkpoint import CheckpointError
from acrf_engine.training.optim import Ramp
from acrf_engine.training.recovery import Recovery
from acrf_engine.training.trainer import NonFinite, Trainer

Make = Callable[..., Trainer]
EXACT = ("loss", "loss_char", "loss_cos", "loss_fft", "loss_balanced", "lr", "grad_norm", "epoch")


def trace(steps: list[Step]) -> list[list[str]]:
    """Everything a step says but its time, without any rounding."""
    return [
        [float(getattr(step, name)).hex() for name in EXACT]
        + [value.hex() for value in (*step.sigmas, *step.weights, *step.losses)]
        + [str(step.anchors), str(step.step)]
        for step in steps
    ]


def train(trainer: Trainer, steps: int) -> list[Step]:
    return [trainer.train_step() for _ in range(steps)]


def poison_the_global_generators() -> None:
    random.seed(666)
    np.random.seed(666)
    torch.manual_seed(666)
    torch.rand(123)


def weights_of(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in lora.weights(trainer.prepared.transformer).items()}


def all_equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# ---- it learns -------------------------------------------------------------------------------------------------------


def losses_on_fixed_draws(trainer: Trainer) -> np.ndarray:
    """The minimised loss on 40 draws that training does not use: the same pictures, noise and sigmas each time."""
    trainer.prepared.transformer.eval()
    losses = []
    with torch.no_grad():
        for draw in range(40):
            examples = [trainer.prepared.dataset.examples[i] for i in trainer.prepared.plan.at(draw)]
            batch = collate(examples)
            x0, captions = batch.latents_BCHW, batch.captions
            taken = acrf_micro_step(
                lambda x, sigma, captions: velocity(trainer.transformer, x, sigma, captions),
                x0, captions, trainer.method, draw=1_000_000 + draw,
            )  # fmt: skip
            losses.append(taken.loss.item())
    return np.array(losses)


def test_forty_steps_on_a_few_pictures_lower_the_loss(make_trainer: Make) -> None:
    """Whatever the base: one with random weights gains more than a hundredth, a trained one more."""
    trainer = make_trainer(steps=40, scheduler="constant", learning_rate=1e-3, network_dim=32, network_alpha=32)
    before = losses_on_fixed_draws(trainer)
    train(trainer, 40)
    after = losses_on_fixed_draws(trainer)
    assert after.mean() < 0.993 * before.mean()
    assert (after < before).mean() > 0.7


def test_the_balanced_loss_is_the_mean_over_anchors_of_their_running_means(make_trainer: Make) -> None:
    """Up to ten draws of an anchor its running mean is the plain mean."""
    trainer = make_trainer(gradient_accumulation=3)
    of_anchor: dict[int, list[float]] = {}
    for step in train(trainer, 5):
        for anchor, loss in zip(step.anchors, step.losses, strict=True):
            of_anchor.setdefault(anchor, []).append(loss)
        expected = np.mean([np.mean(losses) for losses in of_anchor.values()])
        assert step.loss_balanced == pytest.approx(expected, rel=1e-12)


def test_a_step_says_what_it_did(make_trainer: Make) -> None:
    trainer = make_trainer(steps=12, batch_size=2, gradient_accumulation=3, scheduler="cosine", epochs=100)
    first, second = train(trainer, 2)
    assert (first.step, second.step, first.total_steps) == (1, 2, 12)
    assert first.lr == 1e-4
    assert second.lr == pytest.approx(1e-6 + 0.5 * (1e-4 - 1e-6) * (1 + math.cos(math.pi / 12)))
    assert len(first.sigmas) == len(first.anchors) == len(first.weights) == len(first.losses)
    per_epoch = trainer.prepared.plan.batches_per_epoch
    assert second.epoch == pytest.approx(6 / per_epoch)
    anchors = trainer.method.anchors_K
    assert all(abs(anchors[a].item() - s) <= 0.0201 for a, s in zip(first.anchors, first.sigmas, strict=True))
    assert first.grad_norm > 0


def test_the_loss_of_a_step_is_the_mean_over_its_micro_batches(make_trainer: Make) -> None:
    """With one bucket of equal batches, the mean of w_i loss_i over all pictures of the step."""
    trainer = make_trainer(batch_size=1, gradient_accumulation=4)
    (step,) = train(trainer, 1)
    pairs = zip(step.weights, step.losses, strict=True)
    assert step.loss == pytest.approx(np.mean([weight * loss for weight, loss in pairs]), rel=1e-5)
    parts = step.loss_char + 0.1 * step.loss_cos + 0.1 * step.loss_fft
    assert parts == pytest.approx(np.mean(step.losses), rel=1e-5)


def test_steps_follow_from_epochs_where_none_are_given(make_trainer: Make) -> None:
    trainer = make_trainer(steps=None, epochs=5, batch_size=1, gradient_accumulation=3)
    assert trainer.total_steps == math.ceil(5 * 4 / 3)


def test_only_the_lora_moves(make_trainer: Make) -> None:
    trainer = make_trainer()
    base = {
        name: value.clone() for name, value in trainer.prepared.transformer.state_dict().items() if "lora_" not in name
    }
    before = weights_of(trainer)
    train(trainer, 2)
    after = trainer.prepared.transformer.state_dict()
    assert all(torch.equal(after[name], value) for name, value in base.items())
    moved = [not torch.equal(before[name], value) for name, value in weights_of(trainer).items()]
    assert all(moved)


def test_the_gradient_is_clipped_to_the_norm_that_is_set(make_trainer: Make) -> None:
    """AdamW hides the scale of a gradient, so the gradients themselves are looked at, just before the update."""
    trainer = make_trainer(optimization={"max_grad_norm": 1e-3})
    norms: list[float] = []
    step = trainer.optimizer.step

    def look_and_step() -> None:
        gradients = [p.grad for p in trainer.prepared.trainable if p.grad is not None]
        norms.append(torch.cat([g.flatten() for g in gradients]).norm().item())
        step()

    trainer.optimizer.step = look_and_step
    (taken,) = train(trainer, 1)
    assert taken.grad_norm > 1e-3
    assert norms == pytest.approx([1e-3], rel=1e-2)


# ---- it repeats ------------------------------------------------------------------------------------------------------


def test_two_straight_runs_are_equal_to_the_last_bit(make_trainer: Make) -> None:
    first = trace(train(make_trainer("a", batch_size=2), 6))
    poison_the_global_generators()
    assert trace(train(make_trainer("b", batch_size=2), 6)) == first


def test_another_seed_is_another_run(make_trainer: Make) -> None:
    assert trace(train(make_trainer("a"), 1)) != trace(train(make_trainer("b", seed=1), 1))


@pytest.mark.parametrize("optimizer", ["AdamW", "AdamW8bit"])
@pytest.mark.parametrize("at", [3, 4], ids=["in an epoch", "at an epoch's edge"])
def test_a_resumed_run_goes_on_along_the_same_curve_to_the_last_bit(
    make_trainer: Make, tmp_path: Path, optimizer: str, at: int
) -> None:
    """Rank 64, so that AdamW8bit really keeps 8-bit state. Four pictures, one to a step: an epoch is four steps."""
    values = {
        "optimizer": optimizer,
        "network_dim": 64,
        "network_alpha": 32,
        "gradient_accumulation": 1,
        "batch_size": 1,
    }
    straight = make_trainer("straight", **values)
    train(straight, at)
    straight.save_checkpoint()
    shutil.copytree(tmp_path / "runs" / "straight", tmp_path / "runs" / "resumed")
    rest = trace(train(straight, 5))

    poison_the_global_generators()
    said: list[Any] = []
    resumed = make_trainer("resumed", said, **values)
    assert resumed.step == at
    assert trace(train(resumed, 2)) == rest[:2]
    resumed.save_checkpoint()
    again = make_trainer("resumed", said, **values)
    assert trace(train(again, 3)) == rest[2:]
    assert all_equal(weights_of(again), weights_of(straight))
    assert said == []


@pytest.mark.parametrize("lost", ["step", "micro_step", "balance", "settings"])
def test_every_part_of_the_position_matters(make_trainer: Make, lost: str) -> None:
    """The proof that the test above would notice: leave one out, and the curve is another one."""
    values: dict[str, Any] = {"gradient_accumulation": 1}
    straight = make_trainer("a", **values)
    straight.settings.learning_rate = 3e-4
    train(straight, 3)
    straight.save_checkpoint()
    rest = trace(train(straight, 2))

    resumed = make_trainer("a", **values)
    fresh = make_trainer("b", **values)
    setattr(resumed, lost, getattr(fresh, lost))
    assert trace(train(resumed, 2)) != rest


# ---- it goes on with what was set ------------------------------------------------------------------------------------


def test_what_was_set_live_survives_a_resume(make_trainer: Make) -> None:
    trainer = make_trainer()
    train(trainer, 1)
    trainer.settings.learning_rate = 5e-5
    trainer.settings.lambda_fft = 0.0
    trainer.settings.snr_gamma = 1.0
    trainer.save_checkpoint()
    expected = trace(train(trainer, 2))

    resumed = make_trainer()
    assert resumed.settings == trainer.settings
    assert trace(train(resumed, 2)) == expected


def test_a_ramp_of_the_learning_rate_goes_on_where_it_stood(make_trainer: Make) -> None:
    trainer = make_trainer(scheduler="constant", gradient_accumulation=1)
    train(trainer, 1)
    trainer.settings.learning_rate = 5e-5
    trainer.ramp = Ramp(start=1, steps=5, previous=1e-4)
    first, second = train(trainer, 2)
    assert (first.lr, second.lr) == (pytest.approx(9e-5), pytest.approx(8e-5))
    trainer.save_checkpoint()

    resumed = make_trainer(scheduler="constant", gradient_accumulation=1)
    rates = [step.lr for step in train(resumed, 4)]
    assert rates == pytest.approx([7e-5, 6e-5, 5e-5, 5e-5])


def test_a_config_changed_for_the_resume_wins_over_what_was_set_live(make_trainer: Make) -> None:
    trainer = make_trainer()
    train(trainer, 1)
    trainer.settings.learning_rate = 5e-5
    trainer.settings.snr_gamma = 1.0
    trainer.save_checkpoint()
    resumed = make_trainer(learning_rate=2e-4)
    assert resumed.settings.learning_rate == 2e-4
    assert resumed.settings.snr_gamma == 1.0


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 5}, "seed"),
        ({"network_dim": 8}, "network_dim"),
        ({"batch_size": 2}, "batch_size"),
        ({"optimizer": "AdamW8bit"}, "optimizer"),
        ({"lora": {"targets": "ext"}}, "lora.targets"),
        ({"anchors": {"source": "pipeline"}}, "anchors.source"),
    ],
)
def test_a_changed_config_is_refused_by_name(make_trainer: Make, change: dict[str, Any], named: str) -> None:
    trainer = make_trainer()
    train(trainer, 1)
    trainer.save_checkpoint()
    with pytest.raises(CheckpointError, match=rf"config\.yaml: {named} changed since step-000001"):
        make_trainer(**change)


def test_what_does_not_shape_the_run_may_change(make_trainer: Make) -> None:
    trainer = make_trainer()
    train(trainer, 1)
    trainer.save_checkpoint()
    resumed = make_trainer(steps=30, checkpoint={"every": 7}, preview={"every": 3})
    assert (resumed.step, resumed.total_steps) == (1, 30)


@pytest.mark.parametrize("change", ["a caption", "a picture", "one more"])
def test_a_changed_data_set_is_refused(make_trainer: Make, photo_folder: Path, tmp_path: Path, change: str) -> None:
    data = Path(shutil.copytree(photo_folder, tmp_path / "data"))
    trainer = make_trainer(dataset=str(data))
    train(trainer, 1)
    trainer.save_checkpoint()
    if change == "a caption":
        (data / "rocket.txt").write_text("a launch")
    else:
        target = data / ("rocket.png" if change == "a picture" else "new.png")
        Image.new("RGB", (64, 64), "red").save(target)
    with pytest.raises(CheckpointError, match="pictures or captions changed since step-000001"):
        make_trainer(dataset=str(data))


# ---- numbers that are none -------------------------------------------------------------------------------------------


def spoil(trainer: Trainer, index: int = 0, value: float = math.nan) -> str:
    example = trainer.prepared.dataset.examples[index]
    example.latent_CHW[0, 0, 0] = value
    return example.picture.path.name


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_bad_latent_stops_the_run_by_name_and_changes_no_weight(make_trainer: Make, value: float) -> None:
    trainer = make_trainer()
    train(trainer, 1)
    before = weights_of(trainer)
    state = {
        name: value.clone() for name, value in trainer.optimizer.optimizer.state[trainer.prepared.trainable[0]].items()
    }
    name = spoil(trainer, value=value)
    with pytest.raises(NonFinite, match=rf"step 2: loss is .*{name}.*no update was made"):
        trainer.train_step()

    assert all_equal(weights_of(trainer), before)
    assert trainer.step == 1
    for key, value_after in trainer.optimizer.optimizer.state[trainer.prepared.trainable[0]].items():
        assert torch.equal(value_after, state[key])
    assert all(parameter.grad is None for parameter in trainer.prepared.trainable)


def test_weights_that_are_not_finite_never_become_a_checkpoint(make_trainer: Make) -> None:
    trainer = make_trainer()
    train(trainer, 1)
    trainer.save_checkpoint()
    train(trainer, 1)
    with torch.no_grad():
        trainer.prepared.trainable[0][0, 0] = math.nan
    with pytest.raises((CheckpointError, lora.LoraError), match="not finite"):
        trainer.save_checkpoint()
    assert [path.name for path in trainer.folder.checkpoints.iterdir()] == ["step-000001"]
    assert [path.name for path in trainer.folder.lora.iterdir()] == ["run-step-000001.safetensors"]


def test_skip_leaves_the_step_out_and_goes_on(make_trainer: Make) -> None:
    said: list[Any] = []
    trainer = make_trainer(gradient_accumulation=1, safety={"non_finite": "skip"}, scheduler="constant")
    name = spoil(trainer)
    recovery = Recovery(trainer, trainer.config.safety, said.append)
    taken = [recovery.step() for _ in range(8)]  # two epochs of four pictures, each with one bad
    assert sum(step is None for step in taken) == 2
    assert [step.step for step in taken if step is not None] == [1, 2, 3, 4, 5, 6]
    assert len(said) == 2
    assert all(name in warning.message for warning in said)


def test_skipping_ends_where_every_step_is_bad(make_trainer: Make) -> None:
    trainer = make_trainer(safety={"non_finite": "skip", "non_finite_limit": 3})
    for index in range(4):
        spoil(trainer, index)
    recovery = Recovery(trainer, trainer.config.safety, lambda _event: None)
    assert [recovery.step() for _ in range(3)] == [None] * 3
    with pytest.raises(NonFinite, match="3 times in a row"):
        recovery.step()


def test_rolling_back_goes_to_the_checkpoint_with_half_the_rate(make_trainer: Make) -> None:
    trainer = make_trainer(gradient_accumulation=4, safety={"non_finite": "rollback"})
    train(trainer, 2)
    trainer.save_checkpoint()
    saved = weights_of(trainer)
    train(trainer, 1)
    spoil(trainer)
    said: list[Any] = []
    assert Recovery(trainer, trainer.config.safety, said.append).step() is None
    assert trainer.step == 2
    assert trainer.settings.learning_rate == 5e-5
    assert all_equal(weights_of(trainer), saved)


def test_rolling_back_without_a_checkpoint_fails_with_the_reason(make_trainer: Make) -> None:
    trainer = make_trainer(safety={"non_finite": "rollback"})
    spoil(trainer)
    recovery = Recovery(trainer, trainer.config.safety, lambda _event: None)
    with pytest.raises(NonFinite, match="no checkpoint to go back to"):
        recovery.step()


def test_gradient_checkpointing_changes_the_memory_and_not_the_numbers(make_trainer: Make) -> None:
    plain = train(make_trainer("plain", memory={"gradient_checkpointing": "off"}), 3)
    recomputed = train(make_trainer("recomputed", memory={"gradient_checkpointing": "on"}), 3)
    for ours, theirs in zip(recomputed, plain, strict=True):
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-5)
        assert ours.grad_norm == pytest.approx(theirs.grad_norm, rel=1e-4)

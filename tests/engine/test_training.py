"""The training loop on the tiny model: it learns, repeats bit for bit, and refuses what it must."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from exactly import all_equal, poison_the_global_generators, trace, train, weights_of

from acrf_engine.data.batches import collate
from acrf_engine.method.step import acrf_micro_step
from acrf_engine.model import lora
from acrf_engine.model.zimage import velocity
from acrf_engine.training.checkpoint import CheckpointError
from acrf_engine.training.recovery import Recovery
from acrf_engine.training.trainer import NonFinite, Trainer

Make = Callable[..., Trainer]


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
    step = trainer.optimizer.optimizer.step

    def look_and_step() -> None:
        gradients = [p.grad for p in trainer.prepared.trainable if p.grad is not None]
        norms.append(torch.cat([g.flatten() for g in gradients]).norm().item())
        step()

    trainer.optimizer.optimizer.step = look_and_step
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

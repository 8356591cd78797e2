"""The validation loss: what it is, and that the training does not notice it."""

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
from exactly import all_equal, everything, poison_the_global_generators, trace

from acrf_engine.check import check
from acrf_engine.config import RunConfig
from acrf_engine.data.errors import DataError
from acrf_engine.randomness import generator
from acrf_engine.run.wire import to_wire
from acrf_engine.training.trainer import Trainer
from acrf_engine.training.validation import Validator

Make = Callable[..., Trainer]


def nothing() -> None:
    pass


def held_out_names(trainer: Trainer) -> list[str]:
    return [example.picture.path.name for example in trainer.prepared.held_out.examples]


def trained(trainer: Trainer, steps: int) -> Trainer:
    for _ in range(steps):
        trainer.train_step()
    return trainer


def by_hand(trainer: Trainer, lambdas: tuple[float, float, float]) -> list[float]:
    """Per anchor the mean loss of the held-out pictures, in float64 from what the bare model says."""
    prepared, seed = trainer.prepared, trainer.config.seed
    per_anchor = []
    for number, sigma in enumerate(prepared.method.anchors_K.double().clamp(0.001, 0.999).tolist()):
        losses = []
        for example in prepared.held_out.examples:
            x0 = example.latent_CHW
            noise = torch.randn(x0.shape, generator=generator(seed, "validation", example.index, number))
            x_t = (1 - sigma) * x0 + sigma * noise
            with torch.no_grad():
                (said,) = prepared.transformer(
                    [x_t[:, None]], torch.tensor([1 - sigma]), [example.caption_LD], return_dict=False
                )[0]
            prediction, target = -said[:, 0].double().numpy(), (noise - x0).double().numpy()
            d = prediction - target
            char = (np.sqrt(d**2 + 1e-6) - 1e-3).mean()
            cos = 1 - (prediction * target).sum() / np.linalg.norm(prediction) / np.linalg.norm(target)
            fft = np.abs(np.fft.fft2(d, norm="ortho")).mean()
            losses.append(lambdas[0] * char + lambdas[1] * cos + lambdas[2] * fft)
        per_anchor.append(float(np.mean(losses)))
    return per_anchor


@pytest.mark.parametrize("batch_size", [1, 4])
def test_the_loss_is_the_mean_over_anchors_and_pictures_of_the_unweighted_loss(
    make_trainer: Make, batch_size: int
) -> None:
    trainer = trained(make_trainer(validation={"holdout": 2}, batch_size=batch_size, learning_rate=1e-2), 2)
    trainer.settings.lambda_cos = 0.7  # as it was set live
    measured = Validator(trainer).measure(nothing)
    expected = by_hand(trainer, (1.0, 0.7, 0.1))
    assert measured.losses == pytest.approx(expected, rel=1e-5)
    assert measured.loss == pytest.approx(np.mean(expected), rel=1e-5)
    assert (measured.step, measured.pictures, len(measured.losses)) == (2, 2, 10)


def test_the_same_weights_give_the_same_loss_to_the_last_bit(make_trainer: Make) -> None:
    trainer = make_trainer(validation={"holdout": 2})
    first = Validator(trainer).measure(nothing)
    poison_the_global_generators()
    again = Validator(trainer).measure(nothing)
    assert (again.loss, again.losses) == (first.loss, first.losses)
    assert Validator(trained(trainer, 1)).measure(nothing).loss != first.loss


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_a_run_with_validation_trains_as_one_without_the_picture(
    make_trainer: Make, photo_folder: Path, tmp_path: Path, ema_decay: float
) -> None:
    """Dropout and mirroring are on: what they draw is the same too."""
    extras: dict[str, Any] = {
        "data": {"flip": True, "caption_dropout": 0.5},
        "optimization": {"ema_decay": ema_decay},
        "learning_rate": 1e-2,
    }
    validated = make_trainer("validated", validation={"holdout": 1, "every": 1}, **extras)
    (name,) = held_out_names(validated)
    folder = Path(shutil.copytree(photo_folder, tmp_path / "fewer"))
    (folder / name).unlink()
    plain = make_trainer("plain", dataset=str(folder), **extras)
    validator = Validator(validated)
    rows = []
    for _ in range(4):
        before = (random.getstate(), torch.get_rng_state())
        validator.measure(nothing)
        assert random.getstate() == before[0]
        assert torch.equal(torch.get_rng_state(), before[1])
        assert validated.prepared.transformer.training
        assert all(parameter.grad is None for parameter in validated.prepared.trainable)
        rows.append(validated.train_step())
    assert trace(rows) == trace([plain.train_step() for _ in range(4)])
    assert all_equal(everything(validated), everything(plain))


def test_what_is_validated_is_never_trained_on(make_trainer: Make) -> None:
    trainer = make_trainer(validation={"holdout": 2})
    names = {example.picture.path.name for example in trainer.prepared.dataset.examples}
    assert len(names) == 2
    assert not names & set(held_out_names(trainer))
    assert [example.index for example in trainer.prepared.dataset.examples] == [0, 1]


def test_the_moving_average_is_what_is_measured(make_trainer: Make) -> None:
    """As in LoRA files; between two runs of the model the raw weights are back, so that a command meets them."""
    trainer = trained(make_trainer(validation={"holdout": 1}, optimization={"ema_decay": 0.9}, learning_rate=1e-2), 3)
    raw = everything(trainer)
    seen = []
    measured = Validator(trainer).measure(lambda: seen.append(all_equal(everything(trainer), raw)))
    assert len(seen) == 10
    assert all(seen)
    with trainer.averaged_weights():
        assert measured.losses == pytest.approx(by_hand(trainer, (1.0, 0.1, 0.1)), rel=1e-5)


def test_when_it_is_due(make_trainer: Make) -> None:
    """Before the first step, after every third and after the last; each once, and anew by a resumed run."""

    def measured_at(trainer: Trainer) -> list[int]:
        validator, steps = Validator(trainer), []
        for _ in range(9):
            if validator.due:
                steps.append(validator.measure(nothing).step)
            assert not validator.due
            if trainer.step == trainer.total_steps:
                break
            trainer.train_step()
            if trainer.step == 6:
                trainer.save_checkpoint()
        return steps

    values = {"validation": {"holdout": 1, "every": 3}, "steps": 7, "gradient_accumulation": 1}
    assert measured_at(make_trainer(**values)) == [0, 3, 6, 7]
    assert measured_at(make_trainer(**values)) == [6, 7]
    assert measured_at(make_trainer("ends", **{**values, "validation": {"holdout": 1, "every": 0}})) == [0, 7]
    assert measured_at(make_trainer("none", **{**values, "validation": {"holdout": 0}})) == []


def test_a_loss_that_is_not_finite_is_never_a_number(make_trainer: Make) -> None:
    trainer = make_trainer(validation={"holdout": 1})
    with torch.no_grad():
        trainer.prepared.trainable[0].fill_(math.nan)
    body = to_wire(Validator(trainer).measure(nothing))
    assert body["loss"] is None
    assert set(body["losses"]) == {None}
    assert sorted(body["non_finite"]) == ["loss", "losses"]


def test_all_pictures_cannot_be_held_out(make_trainer: Make) -> None:
    with pytest.raises(DataError, match=r"validation.holdout: 4 pictures cannot be held out of 4.*3 at most"):
        make_trainer(validation={"holdout": 4})


def test_check_counts_what_is_held_out(make_config: Callable[..., RunConfig], tmp_path: Path) -> None:
    report = check(make_config(validation={"holdout": 1}), "x.yaml", tmp_path)
    assert (report.pictures, report.held_out, report.micro_batches_per_epoch) == (4, 1, 3)
    with pytest.raises(DataError, match="nothing is left"):
        check(make_config(validation={"holdout": 4}), "x.yaml", tmp_path)

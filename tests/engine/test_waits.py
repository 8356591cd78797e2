"""The loop runs ahead of the device: it waits once a step, for the step's numbers, and never within a micro-batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from acrf_engine.method import step as method_step
from acrf_engine.training import trainer as training
from acrf_engine.training.trainer import Trainer
from benchmarks.waits import Waits

Make = Callable[..., Trainer]
ONCE = {"acrf_engine/training/measured.py tolist": 1}
CPU = torch.device("cpu")


def waits_of_a_step(trainer: Trainer) -> Waits:
    trainer.train_step()  # the first makes the optimizer's state
    with Waits(trainer.prepared.transformer.parameters()) as waits:
        trainer.train_step()
    return waits


@pytest.mark.parametrize(
    "settings",
    [
        {"gradient_accumulation": 1},
        {"gradient_accumulation": 4},
        {
            "gradient_accumulation": 2,
            "optimization": {"ema_decay": 0.9},
            "data": {"flip": True, "caption_dropout": 0.5},
        },
    ],
)
def test_a_step_waits_for_the_device_once(make_trainer: Make, settings: dict[str, Any]) -> None:
    assert waits_of_a_step(make_trainer(batch_size=2, **settings)).ours == ONCE


def test_a_copy_that_waits_would_be_seen(make_trainer: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def waiting(tensor: Tensor, device: torch.device) -> Tensor:
        return tensor.to(device)

    monkeypatch.setattr(method_step, "sent", waiting)
    monkeypatch.setattr(training, "sent", waiting)
    waits = waits_of_a_step(make_trainer(batch_size=2, gradient_accumulation=2))
    assert waits.found.total() > 2 * 4


@pytest.mark.parametrize(
    "read",
    [
        lambda value: value.sum().item(),
        lambda value: float((value * 2).mean()),
        lambda value: bool((value > 0).all()),
        lambda value: value.tolist(),
        lambda value: value[value > 0],
        lambda value: torch.nonzero(value),
        lambda value: value.detach().cpu(),
        lambda value: torch.ones(3, device=CPU).tolist(),
        lambda value: torch.ones(3).to(CPU),
    ],
)
def test_whatever_needs_a_value_of_the_device_counts(read: Callable[[Tensor], Any]) -> None:
    value = torch.arange(3.0)
    with Waits([value]) as waits:
        read(value)
    assert waits.found.total() == 1


def test_what_stays_on_the_cpu_or_is_only_queued_does_not_count() -> None:
    value, ours = torch.arange(3.0), torch.arange(3.0)
    with Waits([value]) as waits:
        assert ours.tolist() == [0.0, 1.0, 2.0]
        assert (value * ours.to(CPU, non_blocking=True)).clamp(max=1).shape == (3,)
    assert waits.found.total() == 0

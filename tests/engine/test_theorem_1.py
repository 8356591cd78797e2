"""Theorem 1: what covering every anchor does to the variance over the time step, and what single anchors do not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from acrf_engine.method.anchors import scheduler_anchors
from acrf_engine.method.sampling import jittered, random_indices, stratified_indices

K, ETA = 10, 0.02
BOUND = 12 * K * ETA**2
LOSSES = pytest.mark.parametrize(
    "loss", [lambda t: t, lambda t: t**2, lambda t: np.sin(np.pi * t)], ids=["t", "t^2", "sin(pi t)"]
)
Loss = Callable[[np.ndarray], np.ndarray]


def uniform_variance(loss: Loss) -> float:
    """Of one uniform draw, by the midpoint rule."""
    t = (np.arange(100_000) + 0.5) / 100_000
    return float(loss(t).var())


def test_the_bound_is_the_papers_4_8_percent() -> None:
    assert pytest.approx(0.048) == BOUND


@LOSSES
def test_a_batch_that_covers_every_anchor_is_below_the_bound(loss: Loss) -> None:
    anchors, indices = scheduler_anchors(K), stratified_indices(K, K)
    means = [
        loss(jittered(anchors, indices, ETA, "uniform", seed=0, draw=draw).double().numpy()).mean()
        for draw in range(4000)
    ]
    ratio = np.var(means) / (uniform_variance(loss) / K)
    assert ratio < BOUND


@LOSSES
def test_single_random_anchors_do_not_reduce_the_variance(loss: Loss) -> None:
    """Why the deck exists: the theorem as printed is false for the paper's own batch size of 1."""
    anchors = scheduler_anchors(K)
    draws = [
        loss(
            jittered(anchors, random_indices(1, K, 0, draw), ETA, "uniform", seed=0, draw=draw).double().numpy()
        ).item()
        for draw in range(20_000)
    ]
    assert np.var(draws) / uniform_variance(loss) > 1.05

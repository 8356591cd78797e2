"""Section 6.2: the learning rate over the run."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acrf_engine.config import RunConfig, build_config
from acrf_engine.training.optim import learning_rate

TOTAL = 200


def config(**values: Any) -> RunConfig:
    return build_config(values)


def rates(run: RunConfig, total: int = TOTAL) -> list[float]:
    return [learning_rate(run, run.learning_rate, step, total) for step in range(total)]


def test_cosine_is_the_papers_formula() -> None:
    """eta_t = eta_min + (eta_max - eta_min) / 2 (1 + cos(t pi / T)), eta_max 1e-4, eta_min 1e-6."""
    expected = [1e-6 + 0.5 * (1e-4 - 1e-6) * (1 + math.cos(t * math.pi / TOTAL)) for t in range(TOTAL)]
    assert rates(config(scheduler="cosine")) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("cycles", [1, 2, 3, 7])
def test_restarts_are_that_many_arcs_of_the_formula(cycles: int) -> None:
    run = config(scheduler="cosine_with_restarts", schedule={"cycles": cycles})
    total = 210
    arc = total / cycles
    expected = [1e-6 + 0.5 * (1e-4 - 1e-6) * (1 + math.cos(t % arc * math.pi / arc)) for t in range(total)]
    found = rates(run, total)
    assert found == pytest.approx(expected, rel=1e-6)
    assert sum(after > before for before, after in pairwise(found)) == cycles - 1


def test_linear_falls_evenly_from_the_peak_to_the_floor() -> None:
    found = rates(config(scheduler="linear"))
    assert found == pytest.approx([1e-4 + (1e-6 - 1e-4) * t / TOTAL for t in range(TOTAL)], rel=1e-9)


def test_constant_is_constant() -> None:
    assert set(rates(config(scheduler="constant"))) == {1e-4}


@pytest.mark.parametrize("scheduler", ["cosine", "cosine_with_restarts", "linear", "constant"])
def test_warm_up_climbs_evenly_to_the_peak_which_the_schedule_starts_from(scheduler: str) -> None:
    found = rates(config(scheduler=scheduler, schedule={"warmup_steps": 10}))
    assert found[:10] == pytest.approx([1e-4 * (t + 1) / 10 for t in range(10)])
    assert found[10] == pytest.approx(1e-4)


@pytest.mark.parametrize("scheduler", ["cosine", "cosine_with_restarts", "linear"])
def test_past_its_end_the_rate_stays_at_the_floor(scheduler: str) -> None:
    run = config(scheduler=scheduler)
    assert [learning_rate(run, 1e-4, step, TOTAL) for step in (TOTAL, TOTAL + 50)] == pytest.approx([1e-6, 1e-6])


def test_a_live_change_scales_the_rest_of_the_schedule() -> None:
    run = config(scheduler="cosine", schedule={"min_lr": 0.0})
    assert learning_rate(run, 5e-5, 77, TOTAL) == pytest.approx(learning_rate(run, 1e-4, 77, TOTAL) / 2)


@settings(deadline=None)
@given(
    scheduler=st.sampled_from(["cosine", "cosine_with_restarts", "linear", "constant"]),
    peak=st.floats(1e-6, 1),
    total=st.integers(1, 500),
    share=st.floats(0, 2),
    warmup=st.integers(0, 100),
)
def test_the_rate_is_never_above_the_peak_and_never_zero(
    scheduler: str, peak: float, total: int, share: float, warmup: int
) -> None:
    run = config(scheduler=scheduler, learning_rate=peak, schedule={"warmup_steps": warmup})
    rate = learning_rate(run, peak, int(total * share), total)
    assert 0 < rate <= peak * (1 + 1e-12)

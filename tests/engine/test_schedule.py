"""Section 6.2: the learning rate over the run."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import diffusers.optimization as diffusers_schedules
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from acrf_engine.config import RunConfig, build_config
from acrf_engine.training.schedule import learning_rate

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


@pytest.mark.parametrize("scheduler", ["cosine", "cosine_with_restarts", "linear", "polynomial", "constant"])
def test_warm_up_climbs_evenly_to_the_peak_which_the_schedule_starts_from(scheduler: str) -> None:
    found = rates(config(scheduler=scheduler, schedule={"warmup_steps": 10}))
    assert found[:10] == pytest.approx([1e-4 * (t + 1) / 10 for t in range(10)])
    assert found[10] == pytest.approx(1e-4)


@pytest.mark.parametrize("scheduler", ["cosine", "cosine_with_restarts", "linear", "polynomial"])
def test_past_its_end_the_rate_stays_at_the_floor(scheduler: str) -> None:
    run = config(scheduler=scheduler)
    assert [learning_rate(run, 1e-4, step, TOTAL) for step in (TOTAL, TOTAL + 50)] == pytest.approx([1e-6, 1e-6])


SECOND_FORMULA: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "constant": ({}, "constant_with_warmup", {}),
    "linear": ({"min_lr": 0.0}, "linear", {}),
    "cosine": ({"min_lr": 0.0}, "cosine", {}),
    "cosine_with_restarts": ({"min_lr": 0.0, "cycles": 4}, "cosine_with_restarts", {"num_cycles": 4}),
    "polynomial": ({"min_lr": 2e-5, "power": 3.0}, "polynomial", {"power": 3.0, "lr_end": 2e-5}),
}


@pytest.mark.parametrize("library", ["transformers", "diffusers"])
@pytest.mark.parametrize("warmup", [{}, {"warmup_steps": 16}, {"warmup_ratio": 0.101}], ids=["none", "steps", "share"])
@pytest.mark.parametrize("scheduler", list(SECOND_FORMULA))
def test_a_schedule_is_the_one_of_the_library(library: str, scheduler: str, warmup: dict[str, Any]) -> None:
    """In the warm-up one step ahead: theirs makes the first update at a rate of 0, and so changes nothing by it."""
    settings, name, arguments = SECOND_FORMULA[scheduler]
    peak, steps = 3e-4, warmup.get("warmup_steps", math.ceil(warmup.get("warmup_ratio", 0) * TOTAL))
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak)
    if library == "transformers":
        theirs = transformers.get_scheduler(name, optimizer, steps, TOTAL, arguments)
    else:
        options = {"num_cycles": arguments.get("num_cycles", 1), "power": arguments.get("power", 1.0)}
        if scheduler == "polynomial":  # its get_scheduler hands no lr_end on
            theirs = diffusers_schedules.get_polynomial_decay_schedule_with_warmup(optimizer, steps, TOTAL, **arguments)
        else:
            theirs = diffusers_schedules.get_scheduler(name, optimizer, None, steps, TOTAL, **options)
    (factor,) = theirs.lr_lambdas
    run = config(scheduler=scheduler, learning_rate=peak, schedule={**settings, **warmup})
    expected = [peak * factor(step + 1 if step < steps else step) for step in range(TOTAL)]
    assert rates(run) == pytest.approx(expected, rel=1e-9, abs=1e-15)


def test_a_share_of_warm_up_grows_with_the_run() -> None:
    run = config(scheduler="constant", schedule={"warmup_ratio": 0.1})
    for total in (10, 200, 1000):
        found = rates(run, total)
        assert sum(rate < 1e-4 * (1 - 1e-9) for rate in found) == total // 10 - 1
        assert found[total // 10 - 1] == pytest.approx(1e-4)


def test_the_power_says_when_the_rate_falls() -> None:
    early, late = (rates(config(scheduler="polynomial", schedule={"power": power})) for power in (3.0, 0.5))
    straight = rates(config(scheduler="linear"))
    assert rates(config(scheduler="polynomial", schedule={"power": 1.0})) == pytest.approx(straight)
    assert all(a < b < c for a, b, c in list(zip(early, straight, late, strict=True))[1:])


def test_a_live_change_scales_the_rest_of_the_schedule() -> None:
    run = config(scheduler="cosine", schedule={"min_lr": 0.0})
    assert learning_rate(run, 5e-5, 77, TOTAL) == pytest.approx(learning_rate(run, 1e-4, 77, TOTAL) / 2)


@settings(deadline=None)
@given(
    scheduler=st.sampled_from(["cosine", "cosine_with_restarts", "linear", "polynomial", "constant"]),
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

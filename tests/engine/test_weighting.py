"""Section 3: signal-to-noise ratio and the Min-SNR weight, as the formulas say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from acrf_engine.method.anchors import scheduler_anchors
from acrf_engine.method.weighting import min_snr_weight, snr


@pytest.mark.parametrize(("t", "printed"), [(0.1, 81.0), (0.3, 5.44), (0.5, 1.0), (0.7, 0.18), (0.9, 0.012)])
def test_snr_table_of_the_paper(t: float, printed: float) -> None:
    assert snr(torch.tensor(t)).item() == pytest.approx(printed, rel=0.03)


def test_weights_on_the_papers_anchors_lower_only_the_two_cleanest() -> None:
    weights = min_snr_weight(scheduler_anchors(10), gamma=5.0)
    assert weights.tolist() == pytest.approx([1.0] * 8 + [0.742, 0.100], abs=1e-3)


def test_gamma_zero_turns_weighting_off() -> None:
    assert min_snr_weight(scheduler_anchors(10), gamma=0.0).tolist() == [1.0] * 10


def test_the_public_variant_puts_the_five_noisiest_anchors_on_the_floor() -> None:
    weights = min_snr_weight(scheduler_anchors(10), 5.0, "min_snr_plus_one")
    assert weights[:5].tolist() == pytest.approx([0.1] * 5)
    assert (weights[5:9] > 0.1).all()


@settings(deadline=None)
@given(sigma=st.floats(0.001, 0.999), gamma=st.floats(0.01, 100))
def test_the_weight_is_the_printed_formula(sigma: float, gamma: float) -> None:
    sigma = float(np.float32(sigma))
    ratio = ((1 - sigma) / sigma) ** 2
    expected = np.clip(min(ratio, gamma) / ratio, 0.1, 1.0)
    assert min_snr_weight(torch.tensor(sigma), gamma).item() == pytest.approx(expected, rel=1e-3)


@settings(deadline=None)
@given(
    sigmas=st.lists(st.floats(0, 1), min_size=1, max_size=20),
    gamma=st.floats(0, 1e6),
    kind=st.sampled_from(["min_snr", "min_snr_plus_one"]),
)
def test_every_weight_is_between_a_tenth_and_one(sigmas: list[float], gamma: float, kind: str) -> None:
    weights = min_snr_weight(torch.tensor(sigmas), gamma, kind)
    assert weights.dtype == torch.float32
    assert ((weights >= np.float32(0.1)) & (weights <= 1.0)).all()

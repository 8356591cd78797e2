"""The composite loss where a mask says what counts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from acrf_engine.method.anchors import scheduler_anchors
from acrf_engine.method.losses import charbonnier, composite, cosine, fft
from acrf_engine.method.step import Method, acrf_micro_step
from acrf_engine.method.validation import held_out_losses

quick = settings(deadline=None, max_examples=25)
seeds = st.integers(0, 2**31)
PARTS: list[Callable[..., Tensor]] = [
    charbonnier,
    lambda p, t, mask_BHW=None: charbonnier(p, t, "norm", mask_BHW),
    cosine,
    fft,
]


def velocities(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Prediction and target [3, 4, 6, 10], and a mask [3, 6, 10] with zeros."""
    source = torch.Generator().manual_seed(seed)
    prediction, target = torch.randn(2, 3, 4, 6, 10, generator=source)
    mask = torch.rand(3, 6, 10, generator=source)
    return prediction, target, mask * (mask > 0.3)


@quick
@given(seeds, st.sampled_from(range(4)))
def test_a_mask_of_ones_is_no_mask_to_the_last_bit(seed: int, part: int) -> None:
    prediction, target, mask = velocities(seed)
    prediction.requires_grad_()
    results = []
    for given_mask in (None, torch.ones_like(mask)):
        loss_B = PARTS[part](prediction, target, mask_BHW=given_mask)
        (gradient,) = torch.autograd.grad(loss_B.sum(), prediction)
        results.append((loss_B, gradient))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


@quick
@given(seeds, st.sampled_from(range(4)))
def test_what_is_masked_out_neither_counts_nor_learns(seed: int, part: int) -> None:
    prediction, target, mask = velocities(seed)
    other = torch.where(mask.unsqueeze(1) == 0, torch.full_like(prediction, 100.0), prediction).requires_grad_()
    loss_B = PARTS[part](other, target, mask_BHW=mask)
    torch.testing.assert_close(loss_B, PARTS[part](prediction, target, mask_BHW=mask))
    (gradient,) = torch.autograd.grad(loss_B.sum(), other)
    assert gradient.isfinite().all()
    assert (gradient.abs().sum(1) > 0).eq(mask > 0).all()


@quick
@given(seeds, st.sampled_from(range(4)), st.floats(0.01, 1))
def test_only_the_shape_of_a_mask_matters_not_its_scale(seed: int, part: int, scale: float) -> None:
    prediction, target, mask = velocities(seed)
    whole, scaled = (PARTS[part](prediction, target, mask_BHW=m) for m in (mask, mask * scale))
    torch.testing.assert_close(whole, scaled)


@quick
@given(seeds, st.sampled_from(range(4)))
def test_where_both_agree_inside_the_mask_the_loss_is_0(seed: int, part: int) -> None:
    prediction, target, mask = velocities(seed)
    agreeing = torch.where(mask.unsqueeze(1) > 0, target, prediction)
    torch.testing.assert_close(PARTS[part](agreeing, target, mask_BHW=mask), torch.zeros(3), atol=1e-6, rtol=0)


@quick
@given(seeds)
def test_each_part_is_its_formula_under_the_mask(seed: int) -> None:
    """In NumPy, float64: a weighted mean, a weighted angle, the spectrum of the weighted difference."""
    prediction, target, mask = velocities(seed)
    v, u, m = (tensor.double().numpy() for tensor in (prediction, target, mask))
    w = (m / m.mean((1, 2), keepdims=True))[:, None]
    char = np.average(np.sqrt((v - u) ** 2 + 1e-6) - 1e-3, axis=(1, 2, 3), weights=np.broadcast_to(w, v.shape))
    np.testing.assert_allclose(charbonnier(prediction, target, mask_BHW=mask).numpy(), char[0:3], rtol=1e-4)
    dots = [(w * a * b).sum((1, 2, 3)) for a, b in ((v, u), (v, v), (u, u))]
    np.testing.assert_allclose(
        cosine(prediction, target, mask).numpy(), 1 - dots[0] / np.sqrt(dots[1] * dots[2]), rtol=1e-4, atol=1e-6
    )
    spectrum = np.fft.fft2(np.sqrt(w) * (v - u), norm="ortho")
    np.testing.assert_allclose(fft(prediction, target, mask).numpy(), np.abs(spectrum).mean((1, 2, 3)), rtol=1e-4)
    energy, weighted = (np.abs(spectrum) ** 2).mean((1, 2, 3)), (w * (v - u) ** 2).mean((1, 2, 3))
    np.testing.assert_allclose(energy, weighted, rtol=1e-9)


def test_a_small_mask_gives_losses_of_the_usual_size() -> None:
    """Of errors that are alike everywhere, so that curves of masked and whole pictures can be compared."""
    source = torch.Generator().manual_seed(0)
    prediction, target = torch.randn(2, 1, 16, 64, 64, generator=source)
    mask = torch.zeros(1, 64, 64)
    mask[:, 20:36, 8:24] = 1
    for part in (charbonnier, cosine, fft):
        assert part(prediction, target, mask_BHW=mask).item() == pytest.approx(part(prediction, target).item(), rel=0.1)


def velocity(x_BCHW: Tensor, sigma_B: Tensor, captions: list[Tensor]) -> Tensor:
    return x_BCHW * 0.5


def test_a_micro_step_with_masks_of_ones_and_weights_of_1_is_one_without() -> None:
    latents = torch.randn(3, 4, 6, 10, generator=torch.Generator().manual_seed(1))
    method = Method(scheduler_anchors(10))
    plain = acrf_micro_step(velocity, latents, [], method, 5)
    dressed = acrf_micro_step(velocity, latents, [], method, 5, torch.ones(3, 6, 10), (1.0, 1.0, 1.0))
    assert plain.part is None
    assert dressed.part is None
    tensors = vars(plain).keys() - {"part"}
    assert all(torch.equal(getattr(plain, name), getattr(dressed, name)) for name in tensors)


def test_the_weight_of_a_picture_is_a_factor_of_its_loss() -> None:
    latents = torch.randn(2, 4, 6, 10, generator=torch.Generator().manual_seed(1))
    taken = acrf_micro_step(velocity, latents, [], Method(scheduler_anchors(10)), 5, None, (3.0, 0.5))
    expected = (taken.weight_B * torch.tensor([3.0, 0.5]) * taken.composite_B).mean()
    torch.testing.assert_close(taken.loss, expected)


def test_held_out_pictures_are_measured_under_their_mask() -> None:
    latent, caption = torch.randn(4, 6, 10, generator=torch.Generator().manual_seed(1)), torch.ones(1, 2)
    method = Method(scheduler_anchors(10))
    mask = torch.zeros(6, 10)
    mask[:3] = 1
    plain, ones, masked = (
        held_out_losses(velocity, latent, caption, method, 0, [0, 4], m) for m in (None, torch.ones(6, 10), mask)
    )
    assert torch.equal(plain, ones)
    assert not torch.allclose(plain, masked)


def test_the_composite_takes_the_mask_to_every_part() -> None:
    prediction, target, mask = velocities(3)
    parts = composite(prediction, target, mask_BHW=mask)
    assert torch.equal(parts.char_B, charbonnier(prediction, target, mask_BHW=mask))
    assert torch.equal(parts.cos_B, cosine(prediction, target, mask))
    assert torch.equal(parts.fft_B, fft(prediction, target, mask))

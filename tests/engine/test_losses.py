"""Section 4: the composite loss against the same formulas in NumPy, float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from acrf_engine.method.losses import Lambdas, charbonnier, composite, cosine, fft

EPSILON = 1e-6


def numpy_charbonnier(v: np.ndarray, u: np.ndarray) -> np.ndarray:
    return np.stack([(np.sqrt((a - b) ** 2 + EPSILON) - np.sqrt(EPSILON)).mean() for a, b in zip(v, u, strict=True)])


def numpy_charbonnier_norm(v: np.ndarray, u: np.ndarray) -> np.ndarray:
    return np.array([np.sqrt(((a - b) ** 2).sum() + EPSILON) - np.sqrt(EPSILON) for a, b in zip(v, u, strict=True)])


def numpy_cosine(v: np.ndarray, u: np.ndarray) -> np.ndarray:
    pairs = [(a.ravel(), b.ravel()) for a, b in zip(v, u, strict=True)]
    return np.array([1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairs])


def numpy_fft(v: np.ndarray, u: np.ndarray) -> np.ndarray:
    difference = np.fft.fft2(v, norm="ortho") - np.fft.fft2(u, norm="ortho")
    return np.abs(difference).reshape(len(v), -1).mean(1)


def charbonnier_norm(prediction: Tensor, target: Tensor) -> Tensor:
    return charbonnier(prediction, target, "norm")


PAIRS = [
    (charbonnier, numpy_charbonnier),
    (charbonnier_norm, numpy_charbonnier_norm),
    (cosine, numpy_cosine),
    (fft, numpy_fft),
]
Loss = Callable[[Tensor, Tensor], Tensor]


@pytest.fixture
def velocities() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(7)
    return random.normal(size=(3, 16, 8, 12)), random.normal(size=(3, 16, 8, 12)) * [[[[0.01]]], [[[1]]], [[[30]]]]


@pytest.mark.parametrize(("loss", "reference"), PAIRS)
def test_the_loss_of_each_picture_is_the_formula(
    loss: Loss, reference: Callable[..., np.ndarray], velocities: tuple[np.ndarray, np.ndarray]
) -> None:
    v, u = velocities
    measured = loss(torch.tensor(v), torch.tensor(u))
    assert measured.shape == (3,)
    np.testing.assert_allclose(measured.numpy(), reference(v, u), rtol=2e-5)


@pytest.mark.parametrize("loss", [pair[0] for pair in PAIRS])
def test_a_perfect_prediction_costs_nothing(loss: Loss, velocities: tuple[np.ndarray, np.ndarray]) -> None:
    target = torch.tensor(velocities[0])
    assert loss(target.clone(), target).abs().max().item() < 1e-6


@pytest.mark.parametrize("loss", [pair[0] for pair in PAIRS])
@pytest.mark.parametrize("case", ["equal", "all zero", "zero against noise", "tiny", "huge"])
def test_the_gradient_is_finite_everywhere(loss: Loss, case: str, velocities: tuple[np.ndarray, np.ndarray]) -> None:
    noise = torch.tensor(velocities[0], dtype=torch.float32)
    prediction, target = {
        "equal": (noise.clone(), noise),
        "all zero": (torch.zeros_like(noise), torch.zeros_like(noise)),
        "zero against noise": (torch.zeros_like(noise), noise),
        "tiny": (noise * 1e-20, noise * 1e-20),
        "huge": (noise * 1e6, -noise * 1e6),
    }[case]
    prediction.requires_grad_()
    loss(prediction, target).sum().backward()
    assert prediction.grad is not None
    assert torch.isfinite(prediction.grad).all()


def test_bfloat16_predictions_are_measured_in_float32(velocities: tuple[np.ndarray, np.ndarray]) -> None:
    v, u = (torch.tensor(item).bfloat16() for item in velocities)
    for loss, reference in PAIRS:
        measured = loss(v, u)
        assert measured.dtype == torch.float32
        np.testing.assert_allclose(measured.numpy(), reference(v.double().numpy(), u.double().numpy()), rtol=2e-5)


def test_the_composite_is_the_sum_under_the_lambdas(velocities: tuple[np.ndarray, np.ndarray]) -> None:
    v, u = velocities
    parts = composite(torch.tensor(v), torch.tensor(u), Lambdas(0.7, 0.2, 0.4))
    expected = 0.7 * numpy_charbonnier(v, u) + 0.2 * numpy_cosine(v, u) + 0.4 * numpy_fft(v, u)
    np.testing.assert_allclose(parts.composite_B.numpy(), expected, rtol=2e-5)


def test_the_default_lambdas_are_the_papers() -> None:
    assert tuple(Lambdas()) == (1.0, 0.1, 0.1)


def test_a_part_with_lambda_zero_is_still_measured_but_does_not_pull(velocities: tuple[np.ndarray, np.ndarray]) -> None:
    v, u = (torch.tensor(item, dtype=torch.float32) for item in velocities)
    with_all, char_only = v.clone().requires_grad_(), v.clone().requires_grad_()
    parts = composite(char_only, u, Lambdas(1.0, 0.0, 0.0))
    parts.composite_B.sum().backward()
    charbonnier(with_all, u).sum().backward()

    np.testing.assert_allclose(parts.fft_B.numpy(), numpy_fft(*velocities), rtol=2e-5)
    np.testing.assert_allclose(parts.cos_B.numpy(), numpy_cosine(*velocities), rtol=2e-5)
    assert torch.equal(char_only.grad, with_all.grad)


def test_the_gradient_agrees_with_finite_differences(velocities: tuple[np.ndarray, np.ndarray]) -> None:
    v, u = (item[:1, :2, :4, :4] for item in velocities)
    prediction = torch.tensor(v, dtype=torch.float32, requires_grad=True)
    composite(prediction, torch.tensor(u)).composite_B.sum().backward()
    assert prediction.grad is not None

    def total(point: np.ndarray) -> float:
        return (numpy_charbonnier(point, u) + 0.1 * numpy_cosine(point, u) + 0.1 * numpy_fft(point, u)).item()

    for where in [(0, 0, 0, 0), (0, 1, 2, 3), (0, 0, 3, 1)]:
        nudge = np.zeros_like(v)
        nudge[where] = 1e-6
        slope = (total(v + nudge) - total(v - nudge)) / 2e-6
        assert prediction.grad[where].item() == pytest.approx(slope, rel=1e-3, abs=1e-6)

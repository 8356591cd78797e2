"""Appendix B, one micro-step, against the same step written again in NumPy with float64."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from acrf_engine.method.anchors import scheduler_anchors
from acrf_engine.method.losses import Lambdas
from acrf_engine.method.sampling import Deck
from acrf_engine.method.step import Method, MicroStep, acrf_micro_step

SHAPE = (16, 8, 8)


class LinearVelocity:
    """v = gain * x_t + slope * sigma + caption, and a note of what it was given."""

    def __init__(self) -> None:
        self.gain = torch.tensor(0.6, requires_grad=True)
        self.slope = torch.tensor(-0.3, requires_grad=True)
        self.x_t = self.sigma = torch.empty(0)

    def __call__(self, x_t: Tensor, sigma: Tensor, captions: list[Tensor]) -> Tensor:
        self.x_t, self.sigma = x_t.detach(), sigma.detach()
        bias = torch.stack([caption.mean() for caption in captions])
        return self.gain * x_t + (self.slope * sigma + bias).view(-1, 1, 1, 1)


def pictures(count: int) -> tuple[Tensor, list[Tensor]]:
    source = torch.Generator().manual_seed(11)
    return torch.randn(count, *SHAPE, generator=source), [torch.full((i + 2, 4), 0.1 * i) for i in range(count)]


def method(**changes: object) -> Method:
    return replace(Method(scheduler_anchors(10), seed=1), **changes)


def reference(velocity: LinearVelocity, x0: np.ndarray, biases: list[float], gamma: float, lambdas: Lambdas) -> dict:
    """Loss and its gradient with respect to gain and slope, from what the model was given and the formulas alone."""
    sigma = velocity.sigma.double().numpy()
    x_t = velocity.x_t.double().numpy()
    s = sigma[:, None, None, None]
    noise = (x_t - (1 - s) * x0) / s

    def loss(gain: float, slope: float) -> tuple[float, np.ndarray, np.ndarray]:
        v_pred = gain * x_t + (slope * sigma + biases)[:, None, None, None]
        v = noise - x0
        d = v_pred - v
        char = (np.sqrt(d**2 + 1e-6) - 1e-3).mean((1, 2, 3))
        flat_p, flat_v = v_pred.reshape(len(v), -1), v.reshape(len(v), -1)
        norms = np.linalg.norm(flat_p, axis=1) * np.linalg.norm(flat_v, axis=1)
        cos = 1 - (flat_p * flat_v).sum(1) / norms
        fft = np.abs(np.fft.fft2(d, norm="ortho")).mean((1, 2, 3))
        snr = ((1 - sigma) / sigma) ** 2
        weight = np.clip(np.minimum(snr, gamma) / snr, 0.1, 1.0) if gamma else np.ones_like(sigma)
        composite = lambdas.char * char + lambdas.cos * cos + lambdas.fft * fft
        return float((weight * composite).mean()), composite, weight

    total, composite, weight = loss(0.6, -0.3)
    h = 1e-5
    return {
        "loss": total,
        "composite": composite,
        "weight": weight,
        "gain": (loss(0.6 + h, -0.3)[0] - loss(0.6 - h, -0.3)[0]) / (2 * h),
        "slope": (loss(0.6, -0.3 + h)[0] - loss(0.6, -0.3 - h)[0]) / (2 * h),
        "noise": noise,
    }


# The noisy anchors only: dividing by a sigma of .009 would amplify float32 rounding a hundredfold.
NOISY = torch.tensor([0.95, 0.9, 0.8, 0.6, 0.4, 0.28])


@pytest.mark.parametrize("gamma", [5.0, 1.0, 0.0])
@pytest.mark.parametrize("batch", [1, 3, 12])
def test_loss_and_gradient_are_appendix_b(batch: int, gamma: float) -> None:
    velocity, lambdas = LinearVelocity(), Lambdas(1.0, 0.1, 0.1)
    x0, captions = pictures(batch)
    micro = acrf_micro_step(velocity, x0, captions, method(anchors_K=NOISY, snr_gamma=gamma, lambdas=lambdas), draw=4)
    micro.loss.backward()

    biases = [caption.double().mean().item() for caption in captions]
    expected = reference(velocity, x0.double().numpy(), biases, gamma, lambdas)
    assert micro.loss.item() == pytest.approx(expected["loss"], rel=1e-4)
    np.testing.assert_allclose(micro.composite_B.numpy(), expected["composite"], rtol=1e-4)
    np.testing.assert_allclose(micro.weight_B.numpy(), expected["weight"], rtol=1e-3)
    assert velocity.gain.grad is not None
    assert velocity.slope.grad is not None
    assert velocity.gain.grad.item() == pytest.approx(expected["gain"], rel=1e-3, abs=1e-5)
    assert velocity.slope.grad.item() == pytest.approx(expected["slope"], rel=1e-3, abs=1e-5)


def test_the_noise_is_standard_normal() -> None:
    velocity = LinearVelocity()
    x0, captions = pictures(12)
    acrf_micro_step(velocity, x0, captions, method(anchors_K=NOISY), draw=0)
    s = velocity.sigma.view(-1, 1, 1, 1)
    noise = (velocity.x_t - (1 - s) * x0) / s
    assert noise.mean().item() == pytest.approx(0.0, abs=0.03)
    assert noise.std().item() == pytest.approx(1.0, abs=0.03)
    assert np.abs(np.corrcoef(noise.flatten(1).numpy()) - np.eye(12)).max() < 0.2


def test_each_picture_has_its_own_weight() -> None:
    """mean(w_i * loss_i), where public code multiplies the mean of the weights with the mean of the losses."""
    velocity = LinearVelocity()
    x0, captions = pictures(10)
    micro = acrf_micro_step(velocity, x0 * torch.arange(1, 11).view(-1, 1, 1, 1), captions, method(), draw=0)
    weights, losses = micro.weight_B.double().numpy(), micro.composite_B.double().numpy()

    assert micro.loss.item() == pytest.approx((weights * losses).mean(), rel=1e-5)
    assert abs(weights.mean() * losses.mean() - (weights * losses).mean()) > 0.01 * micro.loss.item()


def run(draw: int, seed: int = 1) -> tuple[Tensor, MicroStep]:
    velocity = LinearVelocity()
    x0, captions = pictures(3)
    micro = acrf_micro_step(velocity, x0, captions, method(seed=seed), draw=draw)
    return velocity.x_t, micro


def test_the_same_seed_and_draw_give_the_same_step_whatever_the_global_generators_did() -> None:
    first_x, first = run(7)
    torch.manual_seed(999)
    np.random.seed(1)
    again_x, again = run(7)
    assert torch.equal(first_x, again_x)
    assert first.loss.item().hex() == again.loss.item().hex()


def test_another_draw_or_seed_gives_other_noise() -> None:
    x, _ = run(7)
    assert not torch.equal(x, run(8)[0])
    assert not torch.equal(x, run(7, seed=2)[0])


def test_the_step_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    run(3)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_deck_decides_the_anchors() -> None:
    velocity = LinearVelocity()
    x0, captions = pictures(4)
    deck = Deck.of_batch(4, 10, seed=1)
    for draw in range(10):
        micro = acrf_micro_step(velocity, x0, captions, method(deck=deck), draw=draw)
        assert torch.equal(micro.anchor_B, deck.at(draw))
        assert ((micro.sigma_B - scheduler_anchors(10)[micro.anchor_B]).abs() <= 0.02 + 1e-6).all()

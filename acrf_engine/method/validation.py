"""The loss of a picture that is never trained on: at the anchors themselves, with noise that is the same every time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from acrf_engine.method.losses import composite
from acrf_engine.method.sampling import SIGMA_MAX, SIGMA_MIN
from acrf_engine.method.step import Method, Velocity, noised
from acrf_engine.randomness import generator


def held_out_losses(
    velocity: Velocity,
    latent_CHW: Tensor,
    caption_LD: Tensor,
    method: Method,
    picture: int,
    anchors: Sequence[int],
    mask_HW: Tensor | None = None,
) -> Tensor:
    """One picture at some of the anchors, without jitter and without w(sigma): otherwise the loss of training.

    Args:
        velocity: the model; see `Velocity`.
        latent_CHW, caption_LD: clean latent and embedding, on the training device.
        method: anchors, lambdas, Charbonnier and seed are used.
        picture: number of the picture among those held out; with seed and anchor it decides the noise.
        anchors: indices, A of them.
        mask_HW: how much each latent cell counts; see `losses`.

    Returns:
        float32 [A], without a gradient.
    """
    noise_ACHW = torch.stack(
        [torch.randn(latent_CHW.shape, generator=generator(method.seed, "validation", picture, a)) for a in anchors]
    ).to(latent_CHW.device)
    sigma_A = method.anchors_K.float()[list(anchors)].clamp(SIGMA_MIN, SIGMA_MAX).to(latent_CHW.device)
    with torch.no_grad():
        x_t_ACHW, target_ACHW = noised(latent_CHW.expand_as(noise_ACHW), noise_ACHW, sigma_A)
        prediction_ACHW = velocity(x_t_ACHW, sigma_A, [caption_LD] * len(anchors))
        mask_AHW = None if mask_HW is None else mask_HW.expand(len(anchors), -1, -1)
        return composite(prediction_ACHW, target_ACHW, method.lambdas, method.charbonnier, mask_AHW).composite_B

"""One AC-RF micro-step, to be read beside appendix B of the paper."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from acrf_engine.method.losses import Charbonnier, Lambdas, composite
from acrf_engine.method.part import Part
from acrf_engine.method.sampling import Deck, Jitter, jittered, random_indices
from acrf_engine.method.weighting import Weighting, min_snr_weight
from acrf_engine.randomness import generator
from acrf_engine.transfer import sent

Velocity = Callable[[Tensor, Tensor, list[Tensor]], Tensor]
"""(x_t [B, C, H, W], sigma [B], captions) -> predicted velocity noise - x0, [B, C, H, W]."""


@dataclass
class Method:
    """The method's settings; the starred ones may be changed between steps while a run goes on.

    Attributes:
        anchors_K: float32 [K], sigmas of inference, most noisy first.
        snr_gamma: * of Min-SNR; 0 is off.
        jitter_scale: * eta.
        lambdas: * weights of the loss parts.
        deck: deals the anchors over time; None draws them anew for every batch.
        seed: of the run.
    """

    anchors_K: Tensor
    seed: int = 0
    snr_gamma: float = 5.0
    jitter_scale: float = 0.02
    lambdas: Lambdas = Lambdas()
    jitter: Jitter = "uniform"
    deck: Deck | None = None
    weighting: Weighting = "min_snr"
    charbonnier: Charbonnier = "element"


@dataclass(frozen=True)
class MicroStep:
    """What one micro-step gave. `loss` (scalar, with gradient) is minimised; the rest are per picture [B], detached.

    Where several processes train, `sigma_B`, `weight_B` and `anchor_B` are those of the whole micro-batch.
    """

    loss: Tensor
    char_B: Tensor
    cos_B: Tensor
    fft_B: Tensor
    composite_B: Tensor
    sigma_B: Tensor
    weight_B: Tensor
    anchor_B: Tensor
    part: Part | None = None


def acrf_micro_step(
    velocity: Velocity,
    latents_BCHW: Tensor,
    captions: list[Tensor],
    method: Method,
    draw: int,
    masks_BHW: Tensor | None = None,
    picture_weights: Sequence[float] = (),
    part: Part | None = None,
) -> MicroStep:
    """Appendix B.

    Args:
        velocity: the model; see `Velocity`.
        latents_BCHW: clean latents x0, on the training device.
        captions: one [L_i, D] embedding per picture.
        method: settings.
        draw: number of this micro-batch in the run, from 0: decides every random draw.
        masks_BHW: how much each latent cell counts, on the training device; see `losses`.
        picture_weights: factors of the pictures' losses, on top of w(sigma); empty: all 1.
        part: which pictures of the micro-batch these are, where several processes share it.
    """
    B = latents_BCHW.shape[0] if part is None else part.whole
    ours = slice(None) if part is None else slice(part.start, part.stop)
    K = len(method.anchors_K)
    device = latents_BCHW.device

    # 1. anchor-coupled sampling (section 2.2)
    anchor_B = method.deck.at(draw) if method.deck else random_indices(B, K, method.seed, draw)

    # 2. jitter
    sigma_B = jittered(method.anchors_K, anchor_B, method.jitter_scale, method.jitter, method.seed, draw)
    weight_B = min_snr_weight(sigma_B, method.snr_gamma, method.weighting)

    # 3. rectified-flow noising, drawn on the CPU so that every device trains on the same noise
    noise_BCHW = torch.randn((B, *latents_BCHW.shape[1:]), generator=generator(method.seed, "noise", draw))
    sigmas = sent(sigma_B[ours], device)
    x_t_BCHW, target_BCHW = noised(latents_BCHW, sent(noise_BCHW[ours], device), sigmas)

    # 4. the model
    prediction_BCHW = velocity(x_t_BCHW, sigmas, captions)

    # 5. composite loss, weighted per picture by Min-SNR (sections 3.2 and 4.3)
    parts = composite(prediction_BCHW, target_BCHW, method.lambdas, method.charbonnier, masks_BHW)
    factor_B = weight_B[ours]
    if picture_weights:
        factor_B = factor_B * torch.tensor(picture_weights)
    weighted_B = sent(factor_B, device) * parts.composite_B
    loss = weighted_B.mean() if part is None else weighted_B.sum() * part.scale
    return MicroStep(
        loss,
        parts.char_B.detach(),
        parts.cos_B.detach(),
        parts.fft_B.detach(),
        parts.composite_B.detach(),
        sigma_B,
        weight_B,
        anchor_B,
        part,
    )


def noised(latents_BCHW: Tensor, noise_BCHW: Tensor, sigma_B: Tensor) -> tuple[Tensor, Tensor]:
    """Rectified flow: x_t = sigma noise + (1 - sigma) x0, and the velocity noise - x0 that the model has to predict."""
    sigma_B111 = sigma_B.view(-1, 1, 1, 1)
    return sigma_B111 * noise_BCHW + (1 - sigma_B111) * latents_BCHW, noise_BCHW - latents_BCHW

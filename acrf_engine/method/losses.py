"""The composite loss (paper, section 4). Every function works in float32 and returns one value per picture."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

CHARBONNIER_EPSILON = 1e-6

Charbonnier = Literal["element", "norm"]


class Lambdas(NamedTuple):
    """Weights of the three parts (section 4.3)."""

    char: float = 1.0
    cos: float = 0.1
    fft: float = 0.1


class LossParts(NamedTuple):
    """Per picture [B]: the three parts, and `composite`, their sum under the lambdas (before w(sigma))."""

    char_B: Tensor
    cos_B: Tensor
    fft_B: Tensor
    composite_B: Tensor


def charbonnier(prediction: Tensor, target: Tensor, kind: Charbonnier = "element") -> Tensor:
    """Section 4.1, eps 1e-6: sqrt(d^2 + eps) - sqrt(eps).

    Args:
        prediction, target: [B, ...].
        kind: `element` takes it per element and then the mean over the picture; `norm` is the formula as printed, with
            d the vector norm over the whole picture (its size grows with the root of the number of elements).

    Returns:
        float32 [B], >= 0, and 0 exactly where prediction equals target.
    """
    difference = (prediction.float() - target.float()).flatten(1)
    root = CHARBONNIER_EPSILON**0.5
    if kind == "norm":
        return (difference.square().sum(1) + CHARBONNIER_EPSILON).sqrt() - root
    return ((difference.square() + CHARBONNIER_EPSILON).sqrt() - root).mean(1)


def cosine(prediction: Tensor, target: Tensor) -> Tensor:
    """Section 4.2: 1 - cosine similarity over the whole flattened picture. float32 [B], in [0, 2]."""
    return 1 - functional.cosine_similarity(prediction.float().flatten(1), target.float().flatten(1), dim=1)


def fft(prediction: Tensor, target: Tensor) -> Tensor:
    """Section 4.2: mean modulus of the difference of the orthonormal 2-D spectra over the last two axes.

    Args:
        prediction, target: [B, ..., H, W].

    Returns:
        float32 [B], >= 0.
    """
    # The transform is linear, so one transform of the difference is the difference of the two.
    spectrum = torch.fft.fft2(prediction.float() - target.float(), norm="ortho")
    return spectrum.abs().flatten(1).mean(1)


def composite(
    prediction: Tensor, target: Tensor, lambdas: Lambdas = Lambdas(), kind: Charbonnier = "element"
) -> LossParts:
    """Section 4.3 without w(t): all three parts of every picture and their weighted sum.

    A part with lambda 0 is still measured, without a gradient, so that its curve stays visible.
    """
    parts = []
    for weight, measure in (
        (lambdas.char, lambda p: charbonnier(p, target, kind)),
        (lambdas.cos, lambda p: cosine(p, target)),
        (lambdas.fft, lambda p: fft(p, target)),
    ):
        parts.append(measure(prediction if weight else prediction.detach()))
    total = sum((weight * part for weight, part in zip(lambdas, parts, strict=True) if weight), start=torch.zeros(()))
    return LossParts(parts[0], parts[1], parts[2], total.expand_as(parts[0]) if total.ndim == 0 else total)

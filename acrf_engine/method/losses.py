"""The composite loss (paper, section 4). Every function works in float32 and returns one value per picture.

A mask says how much each latent cell counts. It is first divided by its own mean over the picture, so that a picture
counts the same however little of it is kept, and so that scaling a mask changes nothing; a mask of ones is no mask, bit
for bit. With m the result, Charbonnier is the mean of m times its value per element; the norm, cosine and FFT compare
sqrt(m) v with sqrt(m) u. The paper's FFT loss is a norm of F(v) - F(u) = F(v - u), so weighting the difference before
the transform keeps it one: it is still 0 where the two agree inside the mask, and by Parseval's theorem the spectrum's
energy is that of the weighted difference.
"""

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


def charbonnier(
    prediction: Tensor, target: Tensor, kind: Charbonnier = "element", mask_BHW: Tensor | None = None
) -> Tensor:
    """Section 4.1, eps 1e-6: sqrt(d^2 + eps) - sqrt(eps).

    Args:
        prediction, target: [B, ...].
        kind: `element` takes it per element and then the mean over the picture; `norm` is the formula as printed, with
            d the vector norm over the whole picture (its size grows with the root of the number of elements).
        mask_BHW: >= 0 and above 0 somewhere in each picture; see above. Needs [B, C, H, W].

    Returns:
        float32 [B], >= 0, and 0 exactly where prediction equals target.
    """
    difference = prediction.float() - target.float()
    root = CHARBONNIER_EPSILON**0.5
    if kind == "norm":
        squares = _masked(difference, mask_BHW).flatten(1).square()
        return (squares.sum(1) + CHARBONNIER_EPSILON).sqrt() - root
    each = (difference.square() + CHARBONNIER_EPSILON).sqrt() - root
    if mask_BHW is not None:
        each = each * _relative(mask_BHW)
    return each.flatten(1).mean(1)


def cosine(prediction: Tensor, target: Tensor, mask_BHW: Tensor | None = None) -> Tensor:
    """Section 4.2: 1 - cosine similarity over the whole flattened picture. float32 [B], in [0, 2]."""
    ours, theirs = (_masked(velocity.float(), mask_BHW).flatten(1) for velocity in (prediction, target))
    return 1 - functional.cosine_similarity(ours, theirs, dim=1)


def fft(prediction: Tensor, target: Tensor, mask_BHW: Tensor | None = None) -> Tensor:
    """Section 4.2: mean modulus of the difference of the orthonormal 2-D spectra over the last two axes.

    Args:
        prediction, target: [B, ..., H, W]; with a mask [B, C, H, W].

    Returns:
        float32 [B], >= 0.
    """
    # The transform is linear, so one transform of the difference is the difference of the two.
    spectrum = torch.fft.fft2(_masked(prediction.float() - target.float(), mask_BHW), norm="ortho")
    return spectrum.abs().flatten(1).mean(1)


def composite(
    prediction: Tensor,
    target: Tensor,
    lambdas: Lambdas = Lambdas(),
    kind: Charbonnier = "element",
    mask_BHW: Tensor | None = None,
) -> LossParts:
    """Section 4.3 without w(t): all three parts of every picture and their weighted sum.

    A part with lambda 0 is still measured, without a gradient, so that its curve stays visible.
    """
    parts = []
    for weight, measure in (
        (lambdas.char, lambda p: charbonnier(p, target, kind, mask_BHW)),
        (lambdas.cos, lambda p: cosine(p, target, mask_BHW)),
        (lambdas.fft, lambda p: fft(p, target, mask_BHW)),
    ):
        parts.append(measure(prediction if weight else prediction.detach()))
    total = sum((weight * part for weight, part in zip(lambdas, parts, strict=True) if weight), start=torch.zeros(()))
    return LossParts(parts[0], parts[1], parts[2], total.expand_as(parts[0]) if total.ndim == 0 else total)


def _relative(mask_BHW: Tensor) -> Tensor:
    """The mask over its mean, float32 [B, 1, H, W]."""
    mask_BHW = mask_BHW.float()
    return (mask_BHW / mask_BHW.mean((1, 2), keepdim=True)).unsqueeze(1)


def _masked(velocity_BCHW: Tensor, mask_BHW: Tensor | None) -> Tensor:
    return velocity_BCHW if mask_BHW is None else velocity_BCHW * _relative(mask_BHW).sqrt()

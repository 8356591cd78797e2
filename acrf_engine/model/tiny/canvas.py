"""Painting with arrays: what all drawn pictures are made with.

Pictures are `uint8` arrays `[height, width, 3]` in RGB. While they are painted they are floats from 0 to 255.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageFilter

Rgb = tuple[int, int, int]
Picture = np.ndarray
"""`uint8` `[height, width, 3]`."""


def flat(colour: np.ndarray, width: int, height: int) -> np.ndarray:
    return np.broadcast_to(np.asarray(colour, dtype=np.float32), (height, width, 3))


def blend(under: np.ndarray, over: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """`over` (a colour or a picture) on `under` where `mask` `[height, width]` is 1."""
    return under + (np.asarray(over, dtype=np.float32) - under) * mask[..., None]


def framed(picture: np.ndarray, colour: np.ndarray, thickness: float, inset: float) -> np.ndarray:
    """A rectangular line of `thickness` pixels, `inset` pixels from the border."""
    height, width = picture.shape[:2]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) + 0.5
    from_border = np.minimum(np.minimum(x, width - x), np.minimum(y, height - y))
    line = np.clip(thickness / 2 + 0.5 - np.abs(from_border - inset - thickness / 2), 0, 1)
    return blend(picture, colour, line)


def grow(mask: np.ndarray, pixels: float) -> np.ndarray:
    """The mask `[height, width]` in [0, 1], grown by about `pixels` on every side, corners rounded."""
    image = Image.fromarray((mask * 255).astype(np.uint8))
    blurred = np.asarray(image.filter(ImageFilter.GaussianBlur(pixels * 0.75)), dtype=np.float32) / 255.0
    steepness = 6.0 * max(1.0, pixels / 3.5)  # as sharp when the growth is wide
    return np.maximum(mask, np.clip((blurred - 0.03) * steepness, 0, 1))


def to_picture(values: np.ndarray) -> Picture:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def clouds(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Smooth noise of a few sizes: `[height, width]` in [0, 1]."""
    total = np.zeros((height, width), dtype=np.float32)
    for cells in rng.choice([2, 3, 5, 8, 14, 24], size=2, replace=False):
        noise = Image.fromarray(rng.random((int(cells), int(cells)), dtype=np.float32))
        total += np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC)) / math.sqrt(float(cells))
    return (total - total.min()) / (total.max() - total.min() + 1e-6)

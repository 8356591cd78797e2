"""Buckets: the few picture sizes that training uses, all with about the same number of pixels.

Pictures of one batch must have one size; cropping every picture to a square would cut off heads and feet.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

from PIL import Image, ImageOps

from acrf_engine.data.errors import DataError

Size = tuple[int, int]
"""(width, height) in pixels."""


@lru_cache(maxsize=64)
def buckets(resolution: int, step: int = 16, max_ratio: float = 2.0) -> tuple[Size, ...]:
    """Return the (width, height) of every bucket, from the tallest to the widest.

    Sides are multiples of `step` (16: VAE factor 8 times patch 2); the area is the largest possible that is not above
    `resolution`^2; the longer side is at most `max_ratio` times the shorter. The square is always there, and with each
    bucket its transpose. Raises DataError when `resolution` is not a positive multiple of `step`.
    """
    if resolution < step or resolution % step:
        below = max(resolution // step, 1) * step
        near = str(below) if resolution < step else f"{below} or {below + step}"
        raise DataError(f"resolution {resolution} is not a multiple of {step} (use {near})")
    if max_ratio < 1:
        raise ValueError(f"max_ratio must be at least 1, not {max_ratio}")
    area = resolution * resolution

    def fill_area(side: int) -> int:
        return area // (side * step) * step

    found = []
    for width in range(step, math.isqrt(int(area * max_ratio)) + step, step):
        height = fill_area(width)
        # Several widths can share a height; only the widest of them comes near the area.
        if height and fill_area(height) == width and max(width, height) <= max_ratio * min(width, height):
            found.append((width, height))
    return tuple(found)


def bucket_for(width: int, height: int, resolution: int, step: int = 16, max_ratio: float = 2.0) -> Size:
    """Return the bucket whose aspect ratio is nearest, as a factor, to that of a `width` x `height` picture."""
    if width < 1 or height < 1:
        raise ValueError(f"a picture cannot be {width}x{height}")

    def distance(bucket: Size) -> tuple[float, float]:
        aspect = _log_aspect(*bucket)
        return abs(_log_aspect(width, height) - aspect), abs(aspect)

    return min(buckets(resolution, step, max_ratio), key=distance)


def fills(width: int, height: int, resolution: int) -> bool:
    """Whether a `width` x `height` picture is at least as large as its bucket."""
    return _within(bucket_for(width, height, resolution), width, height)


def training_sizes(width: int, height: int, resolutions: Sequence[int], upscale: bool) -> tuple[Size, ...]:
    """Return the bucket of a `width` x `height` picture at each of `resolutions`.

    Without `upscale` no bucket is larger than the picture: resolutions that it does not fill are left out, and where
    it fills none, it goes into the largest bucket that it fills, in steps of a sixteenth below the smallest resolution.
    """
    found = [bucket_for(width, height, resolution) for resolution in resolutions]
    if not upscale:
        found = [size for size in found if _within(size, width, height)]
    if not found:
        # Coarse steps: pictures of many small sizes still share buckets, and so batches.
        resolution = min(resolutions)
        step = max(resolution // 256 * 16, 16)
        lower = range(resolution - step, 15, -step)
        sizes = (bucket_for(width, height, smaller) for smaller in (*lower, 16))
        found = [next((size for size in sizes if _within(size, width, height)), (16, 16))]
    return tuple(dict.fromkeys(found))


def resize_and_crop(image: Image.Image, size: Size) -> Image.Image:
    """Return the centre of `image` in exactly `size` (width, height): resized to cover it, the overhang cropped."""
    return ImageOps.fit(image, size, Image.Resampling.LANCZOS)


def _within(size: Size, width: int, height: int) -> bool:
    return size[0] <= width and size[1] <= height


def _log_aspect(width: int, height: int) -> float:
    # A difference of logarithms, not the logarithm of a quotient: exactly antisymmetric, so that a picture and its
    # transpose always get transposed buckets.
    return math.log(width) - math.log(height)

"""Varied pictures: textures, gradients, hatching, outlines, frames, grain and crops of photographs.

Only the VAE sees them, so that it can represent styles that the transformer has never drawn. The photographs come from
scikit-image, where it is installed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from PIL import Image

from .canvas import Picture, Rgb, blend, clouds, flat, framed, grow, to_picture
from .scenes import COLOURS, draw_scene, random_scene, shape_mask

WIDE = 2.0
"""The spread of scenes that only the VAE sees."""


def varied_picture(rng: np.random.Generator, photographs: list[Picture], size: int = 64) -> Picture:
    """One square picture of the VAE's diet: a scene, an illustration, a texture or a crop of a photograph."""
    kinds: list[tuple[float, Callable[[], Picture]]] = [
        (0.22, lambda: draw_scene(random_scene(rng, spread=WIDE), size, size, rng)),
        (0.42, lambda: _illustration(rng, size)),
        (0.20, lambda: to_picture(_texture(rng, size, size))),
    ]
    if photographs:
        kinds.append((0.16, lambda: _photograph_crop(rng, photographs, size)))
    weights = np.array([weight for weight, _ in kinds])
    return kinds[int(rng.choice(len(kinds), p=weights / weights.sum()))][1]()


def load_photographs() -> list[Picture]:
    """The colour photographs that scikit-image carries in its wheel; empty where it is not installed."""
    try:
        from skimage import data
    except ImportError:
        return []
    names = ("astronaut", "coffee", "chelsea", "rocket", "hubble_deep_field", "retina", "immunohistochemistry")
    grey = ("camera", "brick", "coins", "moon")
    found: list[Picture] = []
    for name in names + grey:
        try:
            picture = np.asarray(getattr(data, name)())
        except (AttributeError, OSError, ImportError):
            continue
        found.append(picture[..., :3] if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2))
    return found


def _photograph_crop(rng: np.random.Generator, photographs: list[Picture], size: int) -> Picture:
    photograph = photographs[int(rng.integers(len(photographs)))]
    height, width = photograph.shape[:2]
    side = int(rng.integers(size, min(height, width, 5 * size) + 1))
    top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
    crop = Image.fromarray(photograph[top : top + side, left : left + side])
    return np.asarray(crop.resize((size, size), Image.Resampling.LANCZOS))


def _illustration(rng: np.random.Generator, size: int) -> Picture:
    """One to three shapes with random fills, perhaps outlined, on paper or a texture, perhaps framed and grainy."""
    picture = _paper(rng, size)
    for _ in range(int(rng.choice([1, 2, 3], p=[0.7, 0.2, 0.1]))):
        scene = random_scene(rng, spread=WIDE)
        scene = replace(scene, angle=float(rng.uniform(-45, 45)), radius=scene.radius * float(rng.uniform(0.7, 1.1)))
        mask = shape_mask(scene, size, size)
        if rng.random() < 0.6:
            picture = blend(picture, _colour(rng, dark=0.7), grow(mask, float(rng.uniform(0.8, 3.5))))
        picture = blend(picture, _fill(rng, size, COLOURS[scene.colour]), mask)
    if rng.random() < 0.5:
        picture = framed(picture, _colour(rng, dark=0.6), float(rng.uniform(1, 5)), float(rng.uniform(0, 6)))
    if rng.random() < 0.5:
        picture = picture + rng.normal(0, rng.uniform(1, 7), (size, size, 1))
    return to_picture(picture)


def _paper(rng: np.random.Generator, size: int) -> np.ndarray:
    if rng.random() < 0.35:
        return _texture(rng, size, size)
    plain = flat(_colour(rng, light=0.5), size, size)
    return plain + rng.uniform(0, 14) * (clouds(rng, size, size)[..., None] - 0.5)


def _fill(rng: np.random.Generator, size: int, colour: Rgb) -> np.ndarray:
    """What is inside a shape: `[size, size, 3]`, flat, hatched or textured."""
    kind = rng.random()
    if kind < 0.25:
        return flat(np.array(colour), size, size)
    if kind < 0.75:
        hatch = _stripes(
            size, size, float(rng.uniform(3.5, 12)), float(rng.uniform(0, 180)), float(rng.uniform(0.3, 0.7))
        )
        return blend(flat(_colour(rng, light=0.5), size, size), np.array(colour), hatch)
    return _texture(rng, size, size)


def _texture(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Two or three random colours mixed by one or two random fields: float `[height, width, 3]`, 0 to 255."""
    picture = blend(flat(_colour(rng), width, height), _colour(rng), _field(rng, width, height))
    if rng.random() < 0.35:
        picture = blend(picture, _colour(rng), _field(rng, width, height))
    if rng.random() < 0.3:
        picture = picture + rng.normal(0, rng.uniform(2, 14), (height, width, int(rng.choice([1, 3]))))
    return picture


def _field(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """A random scalar pattern: float `[height, width]` in [0, 1]."""
    kind = int(rng.integers(5))
    angle, period = float(rng.uniform(0, 180)), float(rng.uniform(3.5, 24))
    if kind == 0:
        return _ramp(width, height, angle)
    if kind == 1:
        return _stripes(width, height, period, angle, float(rng.uniform(0.25, 0.75)), float(rng.uniform(0.5, 4)))
    if kind == 2:
        across = _stripes(width, height, period, angle + 90, 0.5)
        return np.abs(_stripes(width, height, period, angle, 0.5) - across)
    if kind == 3:
        return clouds(rng, width, height)
    x, y = _grid(width, height, angle)
    distance = np.hypot((x % period) - period / 2, (y % period) - period / 2)
    return np.clip(period * rng.uniform(0.2, 0.42) - distance + 0.5, 0, 1)


def _grid(width: int, height: int, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Pixel coordinates turned by `angle` degrees around the middle, each `[height, width]`."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    x, y = x - width / 2 + 0.5, y - height / 2 + 0.5
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    return x * cos + y * sin, y * cos - x * sin


def _ramp(width: int, height: int, angle: float) -> np.ndarray:
    x, _ = _grid(width, height, angle)
    return (x - x.min()) / (x.max() - x.min())


def _stripes(width: int, height: int, period: float, angle: float, share: float, softness: float = 1.0) -> np.ndarray:
    """Stripes of `period` pixels, of which `share` is 1; edges are `softness` pixels wide. `[height, width]`."""
    x, _ = _grid(width, height, angle)
    from_middle = np.abs((x % period) - period / 2)
    return np.clip((period * share / 2 - from_middle) / softness + 0.5, 0, 1)


def _colour(rng: np.random.Generator, light: float = 0.0, dark: float = 0.0) -> np.ndarray:
    """A random colour `[3]`; with probability `light` a pale one, else with probability `dark` a dark one."""
    if rng.random() < light:
        return rng.uniform(190, 255, 3)
    return rng.uniform(0, 70 if rng.random() < dark else 255, 3)

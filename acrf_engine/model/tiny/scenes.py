"""Scenes: one shape in one colour on one background, with a caption. The tiny transformer is trained on these.

Everything random takes a `numpy.random.Generator`, so the same seed gives the same pictures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from .canvas import Picture, Rgb, blend, flat, to_picture

SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "star", "cross", "ring")

COLOURS: dict[str, Rgb] = {
    "red": (220, 30, 35),
    "orange": (245, 130, 20),
    "yellow": (245, 220, 40),
    "green": (35, 160, 60),
    "cyan": (40, 205, 215),
    "blue": (40, 85, 225),
    "purple": (130, 45, 170),
    "pink": (245, 130, 185),
}

BACKGROUNDS: dict[str, Rgb] = {
    "black": (8, 8, 8),
    "white": (248, 248, 248),
    "gray": (128, 128, 128),
    "navy": (18, 24, 72),
    "brown": (92, 58, 32),
}

SUPERSAMPLE = 4
"""Masks are drawn this many times larger and averaged down: smooth edges."""

SMALL, LARGE = 0.31 - 0.05 * 5 / 9, 0.31 + 0.05 * 5 / 9
"""Scenes of a smaller or larger radius may be called so in their captions."""

_SYLLABLES = (
    *("ka", "lo", "mi", "ter", "van", "os", "wood", "cut", "ink", "brush", "pa", "sho"),
    *("li", "gra", "et", "dot", "ma", "ru", "ne", "col", "sten", "cil", "pix", "el"),
)

_REMARKS = (
    "simple flat drawing",
    "clean edges",
    "plain colours",
    "nothing else in the picture",
    "centred in the frame",
    "high quality",
    "seen from the front",
    "no text",
    "for a children's book",
    "made of paper",
)


@dataclass(frozen=True)
class Scene:
    """One shape on a plain background.

    `radius` is a fraction of the shorter side (0.21 to 0.41); `x` and `y` are the centre as fractions of width and
    height; `angle` is in degrees.
    """

    shape: str
    colour: str
    background: str
    radius: float = 0.32
    x: float = 0.5
    y: float = 0.5
    angle: float = 0.0


def random_scene(rng: np.random.Generator, aspect: float = 1.0, spread: float = 1.0) -> Scene:
    """A scene with every property drawn at random.

    `aspect` is width / height of the picture it is meant for; `spread` scales how much size, place and angle vary. The
    default is what a small model learns well: sizes of 0.26 to 0.36, a few pixels and a few degrees.
    """
    radius = 0.31 + spread * float(rng.uniform(-0.05, 0.05))
    return Scene(
        shape=str(rng.choice(SHAPES)),
        colour=str(rng.choice(list(COLOURS))),
        background=str(rng.choice(list(BACKGROUNDS))),
        radius=radius,
        x=_centre(rng, radius * min(1.0, 1.0 / aspect), spread),
        y=_centre(rng, radius * min(1.0, aspect), spread),
        angle=spread * float(rng.uniform(-4.0, 4.0)),
    )


def _centre(rng: np.random.Generator, reach: float, spread: float) -> float:
    """A centre in [0, 1], drawn near the middle, so that a shape reaching `reach` to both sides stays inside."""
    slack = max(0.0, min(0.5 - reach - 0.03, 0.07 * spread))
    return float(np.clip(0.5 + spread * rng.normal(0.0, 0.03), 0.5 - slack, 0.5 + slack))


def caption(scene: Scene) -> str:
    """The plain caption of a scene: `a red circle on a black background`."""
    return f"{article(scene.colour)} {scene.colour} {scene.shape} on a {scene.background} background"


def random_caption(scene: Scene, rng: np.random.Generator, remarks: bool = False) -> str:
    """One of the ways to say a scene; about one in sixteen is the empty prompt.

    Some leave the background open or name an invented style, and with `remarks` all go on about other things, so that
    unknown or idle words in a prompt do not disturb the shape.
    """
    thing = f"{_size_word(scene, rng)}{scene.colour} {scene.shape}"
    one = f"{article(thing)} {thing}"
    back = scene.background
    if remarks:
        return f"{one} on a {back} background, {_remarks(rng)}"
    ways: tuple[tuple[float, str], ...] = (
        (0.53, f"{one} on a {back} background"),
        (0.09, f"{thing} on {back}"),
        (0.08, f"a picture of {one} on a {back} background"),
        (0.08, f"a {back} background with {one}"),
        (0.08, one),
        (0.08, f"{one} in {_invented_word(rng)} style"),
        (0.06, ""),
    )
    return ways[int(rng.choice(len(ways), p=[weight for weight, _ in ways]))][1]


def article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _size_word(scene: Scene, rng: np.random.Generator) -> str:
    """`small ` or `large ` for some of the scenes that are, else nothing."""
    if rng.random() > 0.4:
        return ""
    if scene.radius < SMALL:
        return "small "
    return "large " if scene.radius > LARGE else ""


def _invented_word(rng: np.random.Generator) -> str:
    return "".join(rng.choice(_SYLLABLES, size=int(rng.integers(2, 4))))


def _remarks(rng: np.random.Generator) -> str:
    return ", ".join(rng.choice(_REMARKS, size=int(rng.integers(1, 6)), replace=False))


def draw_scene(scene: Scene, width: int = 64, height: int = 64, rng: np.random.Generator | None = None) -> Picture:
    """The scene in flat colours. With `rng` the two colours vary a little from picture to picture."""
    fill, back = np.array(COLOURS[scene.colour]), np.array(BACKGROUNDS[scene.background])
    if rng is not None:
        fill, back = fill + rng.normal(0, 4, 3), back + rng.normal(0, 2, 3)
    return to_picture(blend(flat(back, width, height), fill, shape_mask(scene, width, height)))


def shape_mask(scene: Scene, width: int, height: int) -> np.ndarray:
    """Where the shape is: float `[height, width]` in [0, 1], smooth at the edges."""
    scale = SUPERSAMPLE
    canvas = Image.new("L", (width * scale, height * scale), 0)
    draw = ImageDraw.Draw(canvas)
    radius = scene.radius * min(width, height) * scale
    centre = (scene.x * width * scale, scene.y * height * scale)
    for points, value in _polygons(scene.shape):
        draw.polygon(_place(points, centre, radius, scene.angle), fill=value)
    return np.asarray(canvas.reduce(scale), dtype=np.float32) / 255.0


def _polygons(shape: str) -> list[tuple[np.ndarray, int]]:
    """The polygons of a shape in unit coordinates, y down, each with its fill (255 shape, 0 hole), in drawing order."""
    if shape == "circle":
        return [(_regular(64), 255)]
    if shape == "ring":
        return [(_regular(64), 255), (_regular(64) * 0.52, 0)]
    if shape == "square":
        return [(_regular(4, turn=45.0) * 1.15, 255)]
    if shape == "triangle":
        return [(_regular(3) * 1.18 + (0.0, 0.2), 255)]
    if shape == "star":
        star = _regular(10) * np.where(np.arange(10) % 2, 0.46, 1.15)[:, None]
        return [(star, 255)]
    if shape == "cross":
        arm, end = 0.34, 1.0
        quarter = np.array([(arm, -end), (arm, -arm), (end, -arm)])
        turn = np.array([(0.0, 1.0), (-1.0, 0.0)])
        return [(np.concatenate([quarter @ np.linalg.matrix_power(turn, n) for n in range(4)]), 255)]
    raise ValueError(f"no such shape: {shape}; one of {', '.join(SHAPES)}")


def _regular(corners: int, turn: float = 0.0) -> np.ndarray:
    """Corners of a regular polygon, `[corners, 2]`, the first one at the top (turned by `turn` degrees)."""
    angles = np.arange(corners) * 2 * math.pi / corners + math.radians(turn)
    return np.stack([np.sin(angles), -np.cos(angles)], axis=1)


def _place(points: np.ndarray, centre: tuple[float, float], radius: float, angle: float) -> list[tuple[float, float]]:
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    turned = points @ np.array([[cos, sin], [-sin, cos]]) * radius + np.array(centre)
    return [(float(x), float(y)) for x, y in turned]

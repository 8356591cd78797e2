"""Pictures drawn by rule: what the tiny model learns, what its VAE learns, and the demo data set.

Three families live here:

* **scenes**: one shape in one colour on one background, with a caption. The tiny transformer is trained on these.
* **varied pictures**: textures, gradients, hatching, outlines, frames, grain and (where scikit-image is installed)
  crops of photographs. Only the VAE sees them, so that it can represent styles that the transformer has never drawn.
* **woodcuts**: scenes in a style of their own. They are the demo data set that a LoRA learns.

Pictures are `uint8` arrays `[height, width, 3]` in RGB. Everything random takes a `numpy.random.Generator`, so the
same seed gives the same pictures.

    python -m acrf_engine.model.tiny.pictures --demo DIR
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

Rgb = tuple[int, int, int]
Picture = np.ndarray
"""`uint8` `[height, width, 3]`."""

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

TRIGGER = "woodcut"
"""The word by which the demo captions call the demo style."""

SUPERSAMPLE = 4
"""Masks are drawn this many times larger and averaged down: smooth edges."""

SMALL, LARGE = 0.31 - 0.05 * 5 / 9, 0.31 + 0.05 * 5 / 9
"""Scenes of a smaller or larger radius may be called so in their captions."""

WIDE = 2.0
"""The spread of scenes that only the VAE sees."""

_SYLLABLES = [
    "ka",
    "lo",
    "mi",
    "ter",
    "van",
    "os",
    "wood",
    "cut",
    "ink",
    "brush",
    "pa",
    "sho",
    "li",
    "gra",
    "et",
    "dot",
    "ma",
    "ru",
    "ne",
    "col",
    "sten",
    "cil",
    "pix",
    "el",
]

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


# ------------------------------------------------------------------------------------------------------- scenes


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
    return f"{_article(scene.colour)} {scene.colour} {scene.shape} on a {scene.background} background"


def random_caption(scene: Scene, rng: np.random.Generator, remarks: bool = False) -> str:
    """One of the ways to say a scene; about one in sixteen is the empty prompt.

    Some leave the background open or name an invented style, and with `remarks` all go on about other things, so that
    unknown or idle words in a prompt do not disturb the shape.
    """
    thing = f"{_size_word(scene, rng)}{scene.colour} {scene.shape}"
    one = f"{_article(thing)} {thing}"
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


def _article(word: str) -> str:
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
    return _to_picture(_blend(_flat(back, width, height), fill, shape_mask(scene, width, height)))


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


# ------------------------------------------------------------------------------------------------ varied pictures


def varied_picture(rng: np.random.Generator, photographs: list[Picture], size: int = 64) -> Picture:
    """One square picture of the VAE's diet: a scene, an illustration, a texture or a crop of a photograph."""
    kinds: list[tuple[float, Callable[[], Picture]]] = [
        (0.22, lambda: draw_scene(random_scene(rng, spread=WIDE), size, size, rng)),
        (0.42, lambda: _illustration(rng, size)),
        (0.20, lambda: _to_picture(_texture(rng, size, size))),
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
            picture = _blend(picture, _colour(rng, dark=0.7), grow(mask, float(rng.uniform(0.8, 3.5))))
        picture = _blend(picture, _fill(rng, size, COLOURS[scene.colour]), mask)
    if rng.random() < 0.5:
        picture = _framed(picture, _colour(rng, dark=0.6), float(rng.uniform(1, 5)), float(rng.uniform(0, 6)))
    if rng.random() < 0.5:
        picture = picture + rng.normal(0, rng.uniform(1, 7), (size, size, 1))
    return _to_picture(picture)


def _paper(rng: np.random.Generator, size: int) -> np.ndarray:
    if rng.random() < 0.35:
        return _texture(rng, size, size)
    plain = _flat(_colour(rng, light=0.5), size, size)
    return plain + rng.uniform(0, 14) * (_clouds(rng, size, size)[..., None] - 0.5)


def _fill(rng: np.random.Generator, size: int, colour: Rgb) -> np.ndarray:
    """What is inside a shape: `[size, size, 3]`, flat, hatched or textured."""
    kind = rng.random()
    if kind < 0.25:
        return _flat(np.array(colour), size, size)
    if kind < 0.75:
        hatch = _stripes(
            size, size, float(rng.uniform(3.5, 12)), float(rng.uniform(0, 180)), float(rng.uniform(0.3, 0.7))
        )
        return _blend(_flat(_colour(rng, light=0.5), size, size), np.array(colour), hatch)
    return _texture(rng, size, size)


def _texture(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Two or three random colours mixed by one or two random fields: float `[height, width, 3]`, 0 to 255."""
    picture = _blend(_flat(_colour(rng), width, height), _colour(rng), _field(rng, width, height))
    if rng.random() < 0.35:
        picture = _blend(picture, _colour(rng), _field(rng, width, height))
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
        return _clouds(rng, width, height)
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


def _clouds(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Smooth noise of a few sizes: `[height, width]` in [0, 1]."""
    total = np.zeros((height, width), dtype=np.float32)
    for cells in rng.choice([2, 3, 5, 8, 14, 24], size=2, replace=False):
        noise = Image.fromarray(rng.random((int(cells), int(cells)), dtype=np.float32))
        total += np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC)) / math.sqrt(float(cells))
    return (total - total.min()) / (total.max() - total.min() + 1e-6)


def _colour(rng: np.random.Generator, light: float = 0.0, dark: float = 0.0) -> np.ndarray:
    """A random colour `[3]`; with probability `light` a pale one, else with probability `dark` a dark one."""
    if rng.random() < light:
        return rng.uniform(190, 255, 3)
    return rng.uniform(0, 70 if rng.random() < dark else 255, 3)


def _flat(colour: np.ndarray, width: int, height: int) -> np.ndarray:
    return np.broadcast_to(np.asarray(colour, dtype=np.float32), (height, width, 3))


def _blend(under: np.ndarray, over: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """`over` (a colour or a picture) on `under` where `mask` `[height, width]` is 1."""
    return under + (np.asarray(over, dtype=np.float32) - under) * mask[..., None]


def _framed(picture: np.ndarray, colour: np.ndarray, thickness: float, inset: float) -> np.ndarray:
    """A rectangular line of `thickness` pixels, `inset` pixels from the border."""
    height, width = picture.shape[:2]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) + 0.5
    from_border = np.minimum(np.minimum(x, width - x), np.minimum(y, height - y))
    line = np.clip(thickness / 2 + 0.5 - np.abs(from_border - inset - thickness / 2), 0, 1)
    return _blend(picture, colour, line)


def grow(mask: np.ndarray, pixels: float) -> np.ndarray:
    """The mask `[height, width]` in [0, 1], grown by about `pixels` on every side, corners rounded."""
    image = Image.fromarray((mask * 255).astype(np.uint8))
    blurred = np.asarray(image.filter(ImageFilter.GaussianBlur(pixels * 0.75)), dtype=np.float32) / 255.0
    steepness = 6.0 * max(1.0, pixels / 3.5)  # as sharp when the growth is wide
    return np.maximum(mask, np.clip((blurred - 0.03) * steepness, 0, 1))


def _to_picture(values: np.ndarray) -> Picture:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


# ---------------------------------------------------------------------------------------------------- demo style

_INK = np.array((38, 26, 22))
_CREAM = np.array((244, 230, 200))


def draw_woodcut(scene: Scene, width: int, height: int, rng: np.random.Generator) -> Picture:
    """The scene in the demo style: a bold ink outline, flat colour, cream paper with a little grain, an ink frame.

    The scene's background is not used. Widths follow the shorter side, so the style survives a reduction to 64 pixels;
    anything finer than that, such as hatching, is beyond a LoRA on 16 tokens.
    """
    unit = min(width, height) / 64.0
    paper = _flat(_CREAM, width, height) + 6.0 * (_clouds(rng, width, height)[..., None] - 0.5)
    paper = _framed(paper, _INK, 2.6 * unit, 2.2 * unit)
    mask = shape_mask(scene, width, height)
    outlined = _blend(paper, _INK, grow(mask, 2.8 * unit))
    return _to_picture(_blend(outlined, np.array(COLOURS[scene.colour]), mask))


def demo_scenes(seed: int = 7) -> list[tuple[Scene, int, int]]:
    """The sixteen demo scenes, each with width and height in pixels: all shapes, all colours, three not square."""
    rng = np.random.default_rng(seed)
    sizes = {3: (320, 192), 8: (192, 320), 13: (320, 192)}
    colours = list(COLOURS)
    scenes = []
    for index in range(16):
        width, height = sizes.get(index, (256, 256))
        scene = random_scene(rng, width / height)
        scene = replace(scene, shape=SHAPES[index % len(SHAPES)], colour=colours[(index * 3) % len(colours)])
        scenes.append((_clear_of_frame(scene), width, height))
    return scenes


def _clear_of_frame(scene: Scene) -> Scene:
    """The scene, a little smaller, so that its outline does not touch the frame."""
    return replace(scene, radius=0.29 + (scene.radius - 0.31) * 0.5)


def demo_caption(scene: Scene) -> str:
    """`a red circle in woodcut style`."""
    return f"{_article(scene.colour)} {scene.colour} {scene.shape} in {TRIGGER} style"


def write_demo(folder: Path, seed: int = 7) -> None:
    """Write the demo data set: sixteen PNG files, each with a caption of the same name."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed + 1)
    for index, (scene, width, height) in enumerate(demo_scenes(seed), start=1):
        name = f"{index:02d}-{scene.colour}-{scene.shape}"
        picture = Image.fromarray(draw_woodcut(scene, width, height, rng))
        picture.quantize(128, dither=Image.Dither.NONE).convert("RGB").save(folder / f"{name}.png", optimize=True)
        (folder / f"{name}.txt").write_text(demo_caption(scene) + "\n", encoding="utf-8")


def contact_sheet(pictures: list[Picture], columns: int, gap: int = 4) -> Image.Image:
    """The pictures in rows of `columns`, each in a cell as large as the largest of them."""
    cell_height = max(picture.shape[0] for picture in pictures) + gap
    cell_width = max(picture.shape[1] for picture in pictures) + gap
    rows = math.ceil(len(pictures) / columns)
    sheet = Image.new("RGB", (columns * cell_width + gap, rows * cell_height + gap), (60, 60, 60))
    for index, picture in enumerate(pictures):
        row, column = divmod(index, columns)
        sheet.paste(Image.fromarray(picture), (gap + column * cell_width, gap + row * cell_height))
    return sheet


def main(arguments: list[str] | None = None) -> None:
    """Command line: write the demo data set."""
    parser = argparse.ArgumentParser(description="Write the demo data set.")
    parser.add_argument("--demo", type=Path, required=True, metavar="DIR", help="folder for pictures and captions")
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args(arguments)
    write_demo(options.demo, options.seed)


if __name__ == "__main__":
    main()

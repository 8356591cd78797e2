"""The demo data set that a LoRA learns: scenes in a style of their own, woodcuts.

python -m acrf_engine.model.tiny.demo_style --demo DIR
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from .canvas import Picture, blend, clouds, flat, framed, grow, to_picture
from .scenes import COLOURS, SHAPES, Scene, article, random_scene, shape_mask

TRIGGER = "woodcut"
"""The word by which the demo captions call the demo style."""

_INK = np.array((38, 26, 22))
_CREAM = np.array((244, 230, 200))


def draw_woodcut(scene: Scene, width: int, height: int, rng: np.random.Generator) -> Picture:
    """The scene in the demo style: a bold ink outline, flat colour, cream paper with a little grain, an ink frame.

    The scene's background is not used. Widths follow the shorter side, so the style survives a reduction to 64 pixels;
    anything finer than that, such as hatching, is beyond a LoRA on 16 tokens.
    """
    unit = min(width, height) / 64.0
    paper = flat(_CREAM, width, height) + 6.0 * (clouds(rng, width, height)[..., None] - 0.5)
    paper = framed(paper, _INK, 2.6 * unit, 2.2 * unit)
    mask = shape_mask(scene, width, height)
    outlined = blend(paper, _INK, grow(mask, 2.8 * unit))
    return to_picture(blend(outlined, np.array(COLOURS[scene.colour]), mask))


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
    return f"{article(scene.colour)} {scene.colour} {scene.shape} in {TRIGGER} style"


def write_demo(folder: Path, seed: int = 7) -> None:
    """Write the demo data set: sixteen PNG files, each with a caption of the same name."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed + 1)
    for index, (scene, width, height) in enumerate(demo_scenes(seed), start=1):
        name = f"{index:02d}-{scene.colour}-{scene.shape}"
        picture = Image.fromarray(draw_woodcut(scene, width, height, rng))
        picture.quantize(128, dither=Image.Dither.NONE).convert("RGB").save(folder / f"{name}.png", optimize=True)
        (folder / f"{name}.txt").write_text(demo_caption(scene) + "\n", encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    """Command line: write the demo data set."""
    parser = argparse.ArgumentParser(description="Write the demo data set.")
    parser.add_argument("--demo", type=Path, required=True, metavar="DIR", help="folder for pictures and captions")
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args(arguments)
    write_demo(options.demo, options.seed)


if __name__ == "__main__":
    main()

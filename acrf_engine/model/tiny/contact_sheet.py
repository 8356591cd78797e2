"""What an exported model draws, on one sheet."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from diffusers.pipelines.z_image.pipeline_z_image import ZImagePipeline
from PIL import Image

from .canvas import Picture
from .scenes import BACKGROUNDS, COLOURS, SHAPES, Scene, caption

COLUMNS = len(COLOURS)


def sheet_prompts() -> list[str]:
    """Forty-eight prompts: every shape in every colour, backgrounds in turn."""
    backgrounds = list(BACKGROUNDS)
    scenes = [
        Scene(shape, colour, backgrounds[(row + column) % len(backgrounds)])
        for row, shape in enumerate(SHAPES)
        for column, colour in enumerate(COLOURS)
    ]
    return [caption(scene) for scene in scenes]


def draw_prompts(folder: Path, prompts: list[str], seed: int, steps: int = 8) -> list[Picture]:
    """What the exported folder draws at 64 x 64 without guidance; prompt number n uses the noise of `seed + n`."""
    pipeline = ZImagePipeline.from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    drawn: list[Picture] = []
    for index, prompt in enumerate(prompts):
        generator = torch.Generator().manual_seed(seed + index)
        result = pipeline(
            prompt, height=64, width=64, num_inference_steps=steps, guidance_scale=0.0, generator=generator
        )
        drawn.append(np.asarray(result.images[0]))
    return drawn


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

"""docs/before-after.png: 8-step samples of a finished run's LoRA beside the same seeds without it.

python docs/before_after.py RUN_FOLDER docs/before-after.png
"""

from __future__ import annotations

import sys

import torch
from diffusers.pipelines.z_image.pipeline_z_image import ZImagePipeline
from PIL import Image, ImageDraw

from acrf_engine.config import load_config
from acrf_engine.model.layout import Checkpoint
from acrf_engine.run.folder import RunFolder
from acrf_engine.run.lora_files import newest_lora

SUBJECTS = ("a blue triangle", "a green ring", "a red star", "a yellow square", "a purple circle", "a cyan cross")
STYLE = " in woodcut style"
SIDE, SCALE, GAP, LABEL = 64, 3, 6, 16


def main(run: str, out: str) -> None:
    torch.set_num_threads(1)  # pictures this small only wait for other threads
    folder = RunFolder(run)
    config = load_config(folder.config)
    pipeline = ZImagePipeline.from_pretrained(str(Checkpoint(config.model).folder))
    pipeline.set_progress_bar_config(disable=True)
    rows = [_row(pipeline)]
    lora = newest_lora(folder)
    pipeline.load_lora_weights(str(lora.parent), weight_name=lora.name)
    rows.append(_row(pipeline))

    cell = SIDE * SCALE + GAP
    sheet = Image.new("RGB", (cell * len(SUBJECTS) + GAP, (cell + LABEL) * 2 + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for y, (pictures, title) in enumerate(zip(rows, ("without the LoRA", "with the LoRA"), strict=True)):
        for x, picture in enumerate(pictures):
            left, top = GAP + x * cell, GAP + y * (cell + LABEL)
            sheet.paste(
                picture.resize((SIDE * SCALE, SIDE * SCALE), Image.Resampling.NEAREST), (left, top + LABEL - GAP)
            )
            draw.text((left, top - 4), f"{SUBJECTS[x]}{STYLE}" if y == 0 else title, fill="black")
    sheet.save(out, optimize=True)


@torch.no_grad()
def _row(pipeline: ZImagePipeline) -> list[Image.Image]:
    """One picture a subject, 8 steps, CFG off, the same seeds for every row."""
    return [
        pipeline(
            subject + STYLE,
            num_inference_steps=8,
            guidance_scale=0.0,
            height=SIDE,
            width=SIDE,
            generator=torch.Generator().manual_seed(100 + index),
        ).images[0]
        for index, subject in enumerate(SUBJECTS)
    ]


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])

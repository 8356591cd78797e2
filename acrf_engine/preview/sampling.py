"""K-step, CFG-off sampling through the installed `ZImagePipeline`: a preview is exactly what inference will draw."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from acrf_engine.model.layout import Checkpoint
from acrf_engine.model.zimage import base_dtype, load_scheduler


@torch.no_grad()
def sample(
    checkpoint: Checkpoint,
    transformer: nn.Module,
    vae: Any,
    caption_LD: Tensor,
    *,
    steps: int,
    seed: int,
    side: tuple[int, int],
) -> Image.Image:
    """One picture.

    Args:
        caption_LD: the prompt's embedding [L, D].
        steps: K. seed: of the starting noise, drawn on the CPU so that every device draws the same picture.
        side: (width, height) in pixels, multiples of 16.
    """
    from diffusers.pipelines.z_image.pipeline_z_image import ZImagePipeline

    pipeline = ZImagePipeline(
        scheduler=load_scheduler(checkpoint), vae=vae, text_encoder=None, tokenizer=None, transformer=transformer
    )
    pipeline.set_progress_bar_config(disable=True)
    width, height = side
    device = pipeline._execution_device  # offloaded weights wait elsewhere
    images = pipeline(
        prompt_embeds=[caption_LD.to(device=device, dtype=base_dtype(transformer))],
        num_inference_steps=steps,
        guidance_scale=0.0,
        width=width,
        height=height,
        generator=torch.Generator().manual_seed(seed),
    ).images
    picture: Image.Image = images[0]
    return picture


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write a PNG beside and rename it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    picture.save(temporary, format="PNG")
    os.replace(temporary, path)

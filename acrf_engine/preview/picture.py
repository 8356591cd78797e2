"""One picture of a prompt with a finished LoRA file, as a user of the file would draw it."""

from __future__ import annotations

from pathlib import Path

import torch

from acrf_engine.model.device import choose_device, choose_dtype
from acrf_engine.model.errors import LoraError
from acrf_engine.model.layout import Checkpoint
from acrf_engine.model.tensor_file import read
from acrf_engine.preview.sampling import save_picture


@torch.no_grad()
def draw(model: str, lora: Path, prompt: str, out: Path, steps: int, seed: int, side: int | None) -> None:
    """Draw `prompt` into the PNG `out` through `ZImagePipeline.load_lora_weights`, CFG off.

    Raises ModelError or LoraError.
    """
    from diffusers.pipelines.z_image.pipeline_z_image import ZImagePipeline

    read(lora)  # a clear message before gigabytes are loaded
    checkpoint = Checkpoint(model)
    device = choose_device("auto")
    pipeline = ZImagePipeline.from_pretrained(
        str(checkpoint.folder), dtype=choose_dtype("auto", device), use_safetensors=True
    ).to(device)
    pipeline.set_progress_bar_config(disable=True)
    try:
        pipeline.load_lora_weights(str(lora.parent), weight_name=lora.name)
    except (ValueError, RuntimeError, KeyError) as error:
        raise LoraError(f"{lora}: does not fit the model {model} ({str(error).splitlines()[0][:200]})") from error
    if not pipeline.get_active_adapters():
        raise LoraError(f"{lora}: no module of it fits the model {model}")
    size = side or checkpoint.native_resolution()
    picture = pipeline(
        prompt,
        num_inference_steps=steps,
        guidance_scale=0.0,
        width=size,
        height=size,
        generator=torch.Generator().manual_seed(seed),
    ).images[0]
    save_picture(picture, out.absolute())

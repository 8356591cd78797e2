"""One picture of a prompt with a finished LoRA file, as a user of the file would draw it."""

from __future__ import annotations

from pathlib import Path

import torch

from acrf_engine.model.device import choose_device, choose_dtype
from acrf_engine.model.errors import LoraError
from acrf_engine.model.layout import Checkpoint
from acrf_engine.model.tensor_file import read
from acrf_engine.model.zimage import load_transformer
from acrf_engine.preview.sampling import save_picture


@torch.no_grad()
def draw(checkpoint: Checkpoint, lora: Path, prompt: str, out: Path, steps: int, seed: int, side: int | None) -> None:
    """Draw `prompt` into the PNG `out` through `ZImagePipeline.load_lora_weights`, CFG off.

    On a GPU text encoder, transformer and VAE are there one after the other, so that the largest of them has to fit.
    Raises ModelError or LoraError.
    """
    from diffusers.pipelines.z_image.pipeline_z_image import ZImagePipeline

    read(lora)  # a clear message before gigabytes are loaded
    device = choose_device("auto")
    dtype = choose_dtype("auto", device)
    pipeline = ZImagePipeline.from_pretrained(
        str(checkpoint.folder),
        transformer=load_transformer(checkpoint, dtype, torch.device("cpu")),
        dtype=dtype,
        use_safetensors=True,
    )
    pipeline.set_progress_bar_config(disable=True)
    try:
        pipeline.load_lora_weights(str(lora.parent), weight_name=lora.name)
    except (ValueError, RuntimeError, KeyError) as error:
        reason = str(error).splitlines()[0][:200]
        raise LoraError(f"{lora}: does not fit the model {checkpoint.name} ({reason})") from error
    if not pipeline.get_active_adapters():
        raise LoraError(f"{lora}: no module of it fits the model {checkpoint.name}")
    if device.type == "cuda":
        pipeline.enable_model_cpu_offload(device=device)
    else:
        pipeline.to(device)
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

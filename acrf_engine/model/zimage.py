"""Loading a Z-Image checkpoint, and its conventions: one code path for the tiny model and for six billion parameters.

The transformer takes lists of [C, F, H, W] latents and of [L_i, D] captions and the time 1 - sigma; its raw output is
x0 - noise, so the velocity is its negative.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from acrf_engine.model.layout import Checkpoint, ModelError

LATENT_FACTOR = 8


def load_scheduler(checkpoint: Checkpoint) -> Any:
    """The checkpoint's own scheduler, with its own shift."""
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

    with _named_errors(checkpoint.folder / "scheduler"):
        return FlowMatchEulerDiscreteScheduler.from_pretrained(str(checkpoint.folder / "scheduler"))


def load_transformer(checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device) -> nn.Module:
    """The frozen transformer in `dtype` on `device`. Raises ModelError."""
    from diffusers.models.transformers.transformer_z_image import ZImageTransformer2DModel

    folder = checkpoint.folder / "transformer"
    with _named_errors(folder):
        model = ZImageTransformer2DModel.from_pretrained(str(folder), dtype=dtype, use_safetensors=True)
    model.requires_grad_(False)
    return model.to(device).eval()


def load_vae(checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype = torch.float32) -> Any:
    """The frozen VAE. Raises ModelError."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    folder = checkpoint.folder / "vae"
    with _named_errors(folder):
        vae = AutoencoderKL.from_pretrained(str(folder), dtype=dtype, use_safetensors=True)
    return vae.requires_grad_(False).to(device).eval()


class Encoders:
    """VAE encoder and text encoder, in memory only while a data set is cached (an `acrf_engine.data.cache.Encoder`)."""

    def __init__(self, checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> None:
        from diffusers.pipelines.z_image.pipeline_z_image import ZImagePipeline
        from transformers import AutoModel, AutoTokenizer

        self.fingerprint = checkpoint.encoders_fingerprint()
        self._device = device
        self._vae = load_vae(checkpoint, device)
        with _named_errors(checkpoint.folder / "text_encoder"):
            text_encoder = AutoModel.from_pretrained(
                str(checkpoint.folder / "text_encoder"), dtype=dtype, use_safetensors=True
            )
        with _named_errors(checkpoint.folder / "tokenizer"):
            tokenizer = AutoTokenizer.from_pretrained(str(checkpoint.folder / "tokenizer"))
        # The pipeline's own encode_prompt: what inference feeds the transformer is what training feeds it.
        self._pipeline = ZImagePipeline(
            scheduler=None,
            vae=None,
            text_encoder=text_encoder.requires_grad_(False).to(device).eval(),
            tokenizer=tokenizer,
            transformer=None,
        )

    @torch.no_grad()
    def encode_picture(self, pixels_3HW: Tensor) -> Tensor:
        """float32 [3, H, W] in [-1, 1] -> latent float32 [16, H/8, W/8], scaled as the checkpoint's VAE config says."""
        config = self._vae.config
        latent = self._vae.encode(pixels_3HW[None].to(self._device)).latent_dist.mode()[0]
        return ((latent - config.shift_factor) * config.scaling_factor).float().cpu()

    @torch.no_grad()
    def encode_caption(self, text: str) -> Tensor:
        """The caption's embedding, float32 [L, D], exactly as the pipeline makes it; "" has one too."""
        embeddings, _ = self._pipeline.encode_prompt(text, device=self._device, do_classifier_free_guidance=False)
        return embeddings[0].float().cpu()


def velocity(transformer: nn.Module, x_BCHW: Tensor, sigma_B: Tensor, captions: list[Tensor]) -> Tensor:
    """Predicted velocity noise - x0, float32 [B, C, H, W].

    Args:
        x_BCHW: noised latents. sigma_B: in [0, 1]. captions: one [L_i, D] per picture, unpadded.
    """
    dtype = base_dtype(transformer)
    x_list = list(x_BCHW.to(dtype).unsqueeze(2).unbind(0))
    caption_list = [caption.to(device=x_BCHW.device, dtype=dtype) for caption in captions]
    output = transformer(x_list, 1 - sigma_B, caption_list, return_dict=False)[0]
    return -torch.stack([item.float() for item in output]).squeeze(2)


def base_dtype(transformer: nn.Module) -> torch.dtype:
    """dtype of the frozen base, whatever the LoRA's own is."""
    return next(parameter.dtype for parameter in transformer.parameters() if not parameter.requires_grad)


def choose_device(wanted: str) -> torch.device:
    """The training device of `memory.device`. Raises ModelError where a GPU is asked for and there is none."""
    available = torch.cuda.is_available()
    if wanted.startswith("cuda") and not available:
        raise ModelError(f"memory.device: {wanted} is asked for, but torch sees no GPU here (use auto or cpu)")
    # Of `cuda:N` the supervisor has made the only card that this process sees.
    return torch.device("cuda" if available and wanted != "cpu" else "cpu")


def choose_dtype(wanted: str, device: torch.device) -> torch.dtype:
    """dtype of the frozen base: `auto` is bf16 on a GPU and fp32 on a CPU."""
    if wanted == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return {"bf16": torch.bfloat16, "fp32": torch.float32}[wanted]


def free_memory() -> None:
    """Give back what dropped models held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextlib.contextmanager
def _named_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
        raise ModelError(f"{folder}: model: cannot be loaded ({reason})") from error

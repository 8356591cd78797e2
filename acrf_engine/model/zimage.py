"""Loading a Z-Image checkpoint, and its conventions: one code path for the tiny model and for six billion parameters.

The transformer takes lists of [C, F, H, W] latents and of [L_i, D] captions and the time 1 - sigma; its raw output is
x0 - noise, so the velocity is its negative.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from acrf_engine.memory_config import MemoryConfig
from acrf_engine.model import quantise
from acrf_engine.model.attention import use_backend
from acrf_engine.model.layout import Checkpoint, ModelError
from acrf_engine.model.offload import offload_base

LATENT_FACTOR = 8
COMPUTED_IN = "x_pad_token"
"""A tensor that no quantisation touches."""


def load_scheduler(checkpoint: Checkpoint) -> Any:
    """The checkpoint's own scheduler, with its own shift."""
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

    with _named_errors(checkpoint.folder / "scheduler"):
        return FlowMatchEulerDiscreteScheduler.from_pretrained(str(checkpoint.folder / "scheduler"))


def load_transformer(
    checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device, memory: MemoryConfig | None = None
) -> nn.Module:
    """The frozen transformer, computing in `dtype` on `device`, stored as `memory` says. Raises ModelError."""
    from diffusers.models.transformers.transformer_z_image import ZImageTransformer2DModel

    memory = memory or MemoryConfig()
    place = checkpoint.single_file or checkpoint.folder / "transformer"
    settings: Any = quantise.base_settings(memory.quantization, dtype)
    wanted: dict[str, Any] = {"dtype": dtype} if settings is None else {"dtype": dtype, "quantization_config": settings}
    with _named_errors(place), quantise.quantising(device):
        if checkpoint.single_file is None:
            model = ZImageTransformer2DModel.from_pretrained(str(place), use_safetensors=True, **wanted)
        else:
            folder = str(checkpoint.folder / "transformer")
            model = ZImageTransformer2DModel.from_single_file(
                str(place), config=folder, local_files_only=True, **wanted
            )
    model.requires_grad_(False)
    quantise.keep_as_stored(model)
    use_backend(model, memory.attention)
    if memory.quantization == "fp8":
        quantise.store_in_fp8(model, dtype)
    if memory.offload:
        offload_base(model, device)
        return model.eval()
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

    def __init__(
        self, checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype, text_encoder: str = "none"
    ) -> None:
        from diffusers.pipelines.z_image.pipeline_z_image import ZImagePipeline
        from transformers import AutoModel, AutoTokenizer

        self.fingerprint = checkpoint.encoders_fingerprint(text_encoder)
        self._device = device
        self._vae = load_vae(checkpoint, device)
        settings = quantise.text_encoder_settings(text_encoder, dtype)
        with _named_errors(checkpoint.folder / "text_encoder"), quantise.quantising(device):
            encoder = AutoModel.from_pretrained(
                str(checkpoint.folder / "text_encoder"),
                dtype=dtype,
                use_safetensors=True,
                quantization_config=settings,
                device_map=None if settings is None else {"": str(device)},
            )
        quantise.keep_as_stored(encoder)
        with _named_errors(checkpoint.folder / "tokenizer"):
            tokenizer = AutoTokenizer.from_pretrained(str(checkpoint.folder / "tokenizer"))
        # The pipeline's own encode_prompt: what inference feeds the transformer is what training feeds it.
        self._pipeline = ZImagePipeline(
            scheduler=None,
            vae=None,
            text_encoder=(encoder.requires_grad_(False).to(device) if settings is None else encoder).eval(),
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
    """In what the frozen base computes, whatever it is stored in and whatever the LoRA's own dtype is."""
    return next(value.dtype for name, value in transformer.named_parameters() if name.endswith(COMPUTED_IN))


@contextlib.contextmanager
def _named_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        reason = str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
        raise ModelError(f"{folder}: model: cannot be loaded ({reason})") from error

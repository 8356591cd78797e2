"""Stage 2 of pretraining: scenes as latents, and the batches drawn from them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor

from .canvas import Picture
from .fitting import Options, Report, step_rng, to_tensor
from .scenes import Scene, draw_scene, random_caption, random_scene

SIZES: tuple[tuple[int, int, float], ...] = ((64, 64, 0.76), (80, 48, 0.12), (48, 80, 0.12))
"""Width, height and share of the scenes; every side is a multiple of 16."""

REMARKS = 0.08
"""Share of the flow batches whose captions are long. Captions of unlike length in one batch cost half as much again."""


@dataclass(frozen=True)
class SceneBatchSource:
    """Scenes of one picture size with their latents, float16 `[N, 16, height / 8, width / 8]`, normalised."""

    scenes: list[Scene]
    latents: Tensor


def encode_scenes(vae: AutoencoderKL, options: Options, report: Report) -> list[SceneBatchSource]:
    """Draw the scenes and encode them, one source for each of `SIZES`.

    Latents are kept in `--work` and used again: a changed VAE, seed or drawing needs a fresh folder.
    """
    sources = []
    for index, (width, height, share) in enumerate(SIZES):
        rng = step_rng(options.seed, 3, index)
        count = int(options.scenes * share)
        scenes = [random_scene(rng, width / height) for _ in range(count)]
        kept = options.work / f"latents-{options.scenes}-{width}x{height}.pt"
        if kept.exists():
            latents = torch.load(kept, weights_only=True)
        else:
            drawn = (draw_scene(scene, width, height, rng) for scene in scenes)
            latents = torch.cat([encode(vae, batch, options.device) for batch in _batches(drawn, 64)])
            torch.save(latents, kept)
        report(f"latents {width}x{height}: {count}, mean {latents.float().mean():.3f} std {latents.float().std():.3f}")
        sources.append(SceneBatchSource(scenes, latents))
    return sources


@torch.no_grad()
def encode(vae: AutoencoderKL, drawn: list[Picture], device: torch.device) -> Tensor:
    """Normalised latents of pictures of one size, float16 on the CPU."""
    mode = vae.encode(to_tensor(drawn, device)).latent_dist.mode()
    return ((mode - vae.config.shift_factor) * vae.config.scaling_factor).half().cpu()


def _batches(items: Iterable[Picture], size: int) -> Iterable[list[Picture]]:
    batch: list[Picture] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def draw_batch(sources: list[SceneBatchSource], rng: np.random.Generator, size: int) -> tuple[Tensor, list[str]]:
    """Latents `[size, 16, H, W]` of one picture size, float32, and a freshly worded caption for each."""
    shares = np.array([share for _, _, share in SIZES])
    source = sources[int(rng.choice(len(sources), p=shares / shares.sum()))]
    rows = rng.integers(len(source.scenes), size=size)
    remarks = bool(rng.random() < REMARKS)
    captions = [random_caption(source.scenes[row], rng, remarks) for row in rows]
    return source.latents[torch.from_numpy(rows)].float(), captions

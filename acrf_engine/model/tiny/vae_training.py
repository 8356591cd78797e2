"""Stage 1 of pretraining: the VAE, on varied pictures."""

from __future__ import annotations

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor
from torch.nn import functional

from . import architecture
from .fitting import Fitting, Options, Progress, Report, step_rng, to_tensor, torch_generator
from .scenes import draw_scene, random_scene
from .varied_pictures import load_photographs, varied_picture

BATCH = 16
KL_WEIGHT = 1e-4
"""Of the KL divergence averaged over latent elements; keeps the latents near unit size, hardly costs sharpness."""

EDGE_WEIGHT = 0.5
COARSE_WEIGHT = 2.0


def train_vae(options: Options, report: Report) -> AutoencoderKL:
    """Fit the VAE to varied pictures, 64 x 64, and set its scaling and shift from the latents of scenes."""
    vae = architecture.build_vae().to(options.device)
    fitting = Fitting(vae, options.vae_steps, options.work / "vae.pt", _hidden_in_vae, decay=0.99)
    photographs = load_photographs()
    progress = Progress("vae", options.vae_steps, 50, report)
    while fitting.step < options.vae_steps:
        rng = step_rng(options.seed, 1, fitting.step)
        target = to_tensor((varied_picture(rng, photographs) for _ in range(BATCH)), options.device)
        loss = vae_loss(fitting.model, target, torch_generator(rng))
        fitting.update(loss)
        progress.add(fitting.step, loss.item())
        if fitting.step % 250 == 0 or fitting.step == options.vae_steps:
            fitting.save()
    vae = fitting.average
    _measure_latents(vae, options)
    report(f"vae shift {vae.config.shift_factor:.4f} scale {vae.config.scaling_factor:.4f}")
    return vae


def _hidden_in_vae(name: str) -> bool:
    return "conv_in" not in name and not name.startswith("decoder.conv_out")


def vae_loss(vae: AutoencoderKL, target: Tensor, generator: torch.Generator) -> Tensor:
    """Charbonnier distance of pixels and of edges, squared distance of 4 x 4 means, and a small KL term.

    The means carry the colours, which the other terms alone teach late. `target`: `[B, 3, H, W]` in [-1, 1].
    """
    with torch.autocast(target.device.type, torch.bfloat16):
        posterior = vae.encode(target).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator).to(target.device)
        drawn = vae.decode(posterior.mean + posterior.std * noise).sample
    drawn = drawn.float()
    loss = _charbonnier(drawn - target)
    for axis in (2, 3):
        loss = loss + EDGE_WEIGHT * _charbonnier(drawn.diff(dim=axis) - target.diff(dim=axis))
    loss = loss + COARSE_WEIGHT * functional.avg_pool2d(drawn - target, 4).square().mean()
    mean, logvar = posterior.mean.float(), posterior.logvar.float()
    return loss + KL_WEIGHT * 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).mean()


def _charbonnier(difference: Tensor) -> Tensor:
    return (difference.square() + 1e-6).sqrt().mean()


@torch.no_grad()
def _measure_latents(vae: AutoencoderKL, options: Options) -> None:
    """Put into the VAE's config the shift and scale that give the latents of scenes mean 0 and variance 1."""
    rng = step_rng(options.seed, 2, 0)
    drawn = [draw_scene(random_scene(rng), 64, 64, rng) for _ in range(512)]
    latents = vae.encode(to_tensor(drawn, options.device)).latent_dist.mode()
    vae.register_to_config(shift_factor=latents.mean().item(), scaling_factor=1.0 / latents.std().item())

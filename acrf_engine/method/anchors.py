"""Anchors (paper, section 2.1): the sigmas at which inference samples, and so the only ones worth training at."""

from __future__ import annotations

import copy
from typing import Any

import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from torch import Tensor

PAPER_SHIFT = 3.0


def scheduler_anchors(steps: int, scheduler: FlowMatchEulerDiscreteScheduler | None = None) -> Tensor:
    """Section 2.1 as printed: `set_timesteps(K)`, then all sigmas but the closing 0.

    Args:
        steps: K, the number of sampling steps.
        scheduler: the checkpoint's own scheduler; None is the paper's `FlowMatchEulerDiscreteScheduler(shift=3.0)`.

    Returns:
        float32 [K], falling, in [0, 1]; for K = 10 and shift 3 the list printed in the paper.
    """
    scheduler = (
        copy.deepcopy(scheduler) if scheduler is not None else FlowMatchEulerDiscreteScheduler(shift=PAPER_SHIFT)
    )
    scheduler.set_timesteps(num_inference_steps=steps)
    return scheduler.sigmas[:-1].float().clone()


def pipeline_anchors(steps: int, scheduler: FlowMatchEulerDiscreteScheduler, latent_side: int = 8) -> Tensor:
    """The sigmas at which the installed `ZImagePipeline` calls its transformer for K steps.

    The pipeline itself is run, with a stand-in for the transformer that writes down the times it is asked for, so this
    follows whatever the installed diffusers does (section 2.1: training and inference times are the same).

    Args:
        steps: K.
        scheduler: the checkpoint's own scheduler.
        latent_side: side of the square latent; matters only for schedulers that shift by resolution.

    Returns:
        float32 [K], falling, in [0, 1].
    """
    from diffusers.pipelines.z_image.pipeline_z_image import ZImagePipeline

    recorder = _TimeRecorder()
    pipeline = ZImagePipeline(
        scheduler=copy.deepcopy(scheduler),
        vae=None,
        text_encoder=None,
        tokenizer=None,
        transformer=recorder,
    )
    pipeline.set_progress_bar_config(disable=True)
    pipeline(
        prompt_embeds=[torch.zeros(1, 8)],
        num_inference_steps=steps,
        guidance_scale=0.0,
        height=latent_side * 8,
        width=latent_side * 8,
        output_type="latent",
    )
    # The transformer is asked at time 1 - sigma.
    return 1.0 - torch.tensor(recorder.times, dtype=torch.float64).float()


class _TimeRecorder(torch.nn.Module):
    """Answers like the transformer, with zeros, and keeps the times."""

    in_channels = 16
    dtype = torch.float32
    device = torch.device("cpu")

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    def forward(self, x: list[Tensor], t: Tensor, *args: Any, **kwargs: Any) -> tuple[list[Tensor]]:
        self.times.append(float(t[0]))
        return ([torch.zeros_like(latent) for latent in x],)

"""Section 2.1: the anchors are the sigmas at which inference samples."""

from __future__ import annotations

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, ZImagePipeline

from acrf_engine.method.anchors import pipeline_anchors, scheduler_anchors

PAPER_10 = [1.000, 0.960, 0.913, 0.858, 0.790, 0.707, 0.602, 0.465, 0.278, 0.009]
PIPELINE_10 = [1.0, 0.9643, 0.9231, 0.8750, 0.8182, 0.7500, 0.6667, 0.5625, 0.4286, 0.2500]
PIPELINE_8 = [1.0, 0.9545, 0.9000, 0.8333, 0.7500, 0.6429, 0.5000, 0.3000]


def turbo_scheduler() -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(shift=3.0)


def test_ten_steps_give_the_list_printed_in_the_paper() -> None:
    assert scheduler_anchors(10).tolist() == pytest.approx(PAPER_10, abs=1e-3)


def test_the_checkpoints_own_shift_is_used() -> None:
    unshifted = scheduler_anchors(10, FlowMatchEulerDiscreteScheduler(shift=1.0))
    assert unshifted[5].item() < scheduler_anchors(10)[5].item() - 0.1


@pytest.mark.parametrize(("steps", "expected"), [(10, PIPELINE_10), (8, PIPELINE_8)])
def test_pipeline_anchors_are_the_ones_of_the_installed_pipeline(steps: int, expected: list[float]) -> None:
    assert pipeline_anchors(steps, turbo_scheduler()).tolist() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("steps", [1, 4, 10])
def test_the_pipeline_really_calls_the_transformer_at_the_anchors(steps: int) -> None:
    asked: list[float] = []

    class Recorder(torch.nn.Module):
        in_channels, dtype, device = 16, torch.float32, torch.device("cpu")

        def forward(
            self, x: list[torch.Tensor], t: torch.Tensor, *_: object, **__: object
        ) -> tuple[list[torch.Tensor]]:
            asked.append(t.flatten()[0].item())
            return ([torch.randn_like(latent) for latent in x],)

    pipeline = ZImagePipeline(turbo_scheduler(), None, None, None, Recorder())
    pipeline.set_progress_bar_config(disable=True)
    pipeline(
        prompt_embeds=[torch.ones(3, 8)], num_inference_steps=steps, guidance_scale=0.0, height=128, width=128,
        output_type="latent",
    )  # fmt: skip

    assert (1 - pipeline_anchors(steps, turbo_scheduler())).tolist() == pytest.approx(asked, abs=1e-6)


def test_asking_for_anchors_leaves_the_scheduler_as_it_was() -> None:
    scheduler = turbo_scheduler()
    before = scheduler.sigmas.clone()
    scheduler_anchors(7, scheduler)
    pipeline_anchors(7, scheduler)
    assert torch.equal(scheduler.sigmas, before)


@pytest.mark.parametrize("steps", [1, 2, 8, 10, 20, 50])
def test_anchors_fall_from_pure_noise(steps: int) -> None:
    for anchors in (scheduler_anchors(steps), pipeline_anchors(steps, turbo_scheduler())):
        assert anchors.shape == (steps,)
        assert anchors.dtype == torch.float32
        assert anchors[0].item() == pytest.approx(1.0)
        assert (anchors.diff() < 0).all()
        assert anchors.min().item() >= 0

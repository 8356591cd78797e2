"""What a run will do and what it takes, told to the dashboard."""

from __future__ import annotations

import torch

from acrf_engine.lora_config import LoraConfig
from acrf_engine.protocol import Memory, Plan
from acrf_engine.training.identity import environment
from acrf_engine.training.preparation import base_parameters, count_parameters
from acrf_engine.training.trainer import Trainer


def plan_event(trainer: Trainer) -> Plan:
    """What this run will do, for the dashboard."""
    prepared, config = trainer.prepared, trainer.config
    trainable = count_parameters(prepared.trainable)
    return Plan(
        model=config.model,
        device=_device_name(prepared.device),
        dtype=str(prepared.dtype).removeprefix("torch."),
        pictures=prepared.dataset.pictures,
        buckets=_fullest(prepared.dataset.bucket_counts),
        batch_size=config.batch_size,
        gradient_accumulation=config.gradient_accumulation,
        micro_batches_per_epoch=prepared.plan.batches_per_epoch,
        total_steps=trainer.total_steps,
        start_step=trainer.step,
        anchors=trainer.method.anchors_K.tolist(),
        snr_gamma=trainer.settings.snr_gamma,
        weighting=config.loss.weighting,
        jitter_scale=trainer.settings.jitter_scale,
        trainable_parameters=trainable,
        base_parameters=base_parameters(prepared.checkpoint),
        lora_modules=len(prepared.modules),
        rank=config.network_dim,
        alpha=config.network_alpha,
        optimizer=config.optimizer,
        scheduler=config.scheduler,
        learning_rate=trainer.settings.learning_rate,
        lambda_char=trainer.settings.lambda_char,
        lambda_cos=trainer.settings.lambda_cos,
        lambda_fft=trainer.settings.lambda_fft,
        max_grad_norm=trainer.settings.max_grad_norm,
        versions=environment(config.optimizer),
        held_out=prepared.held_out.pictures,
        num_processes=trainer.ranks.count,
        captions_missing=prepared.dataset.without_caption,
        lora_targets=_targets(config.lora),
    )


def _targets(config: LoraConfig) -> str:
    kinds = config.targets if isinstance(config.targets, str) else "patterns"
    blocks = f" of blocks {config.blocks}" if config.blocks != "all" else ""
    return kinds + blocks + (" and refiners" if config.refiners else "")


def memory_event(device: torch.device) -> Memory | None:
    if device.type != "cuda":
        return None
    return Memory(torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated())


def _fullest(counts: dict[tuple[int, int], int], shown: int = 24) -> dict[str, int]:
    """The fullest buckets by name, the rest as one sum: an event has to stay short."""
    names = [(f"{width}x{height}", count) for (width, height), count in counts.items()]
    rest = sum(count for _, count in names[shown:])
    return dict(names[:shown]) | ({"others": rest} if rest else {})


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"

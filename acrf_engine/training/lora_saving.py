"""The LoRA file of a run at one of its steps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from acrf_engine.config import RunConfig
from acrf_engine.model import lora_metadata
from acrf_engine.model.adapter import from_training
from acrf_engine.model.export import save
from acrf_engine.model.lora import scaling, weights
from acrf_engine.run.folder import RunFolder
from acrf_engine.training.preparation import Prepared


def save_trained(
    path: Path,
    config: RunConfig,
    folder: RunFolder,
    prepared: Prepared,
    *,
    step: int,
    total_steps: int,
    epoch: float,
    more: Mapping[str, str],
) -> int:
    """Write the LoRA that is in the model now, in diffusers format and with `more` metadata, and load it back.

    Returns the number of modules in it. Raises LoraError: a failed save.
    """
    metadata = lora_metadata.of_training(
        config,
        name=folder.name,
        step=step,
        total_steps=total_steps,
        epoch=epoch,
        resolution=prepared.resolution,
        started=folder.recorded_status().created,
    )
    scale = scaling(config.network_dim, config.network_alpha, config.lora.use_rslora)
    return save(path, from_training(weights(prepared.transformer), scale), {**metadata, **more})

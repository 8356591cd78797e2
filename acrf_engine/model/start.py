"""Starting a LoRA from another one, of whatever format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from acrf_engine.model.adapter import Lora, is_dora
from acrf_engine.model.errors import TargetsError
from acrf_engine.model.export import read
from acrf_engine.model.lora import ADAPTER, reset_magnitudes, scaling
from acrf_engine.model.targets import require_rank


@torch.no_grad()
def start_from(
    transformer: nn.Module, modules: list[str], path: Path, rank: int, alpha: float, use_rslora: bool, use_dora: bool
) -> None:
    """Give the injected LoRA the effect of the one in the file `path`; modules that it lacks start from nothing.

    Raises TargetsError where that is not possible without loss: another rank, modules that are not trained here, DoRA
    into a LoRA without.
    """
    lora, _ = read(path)
    key = f"lora.init_from: {path}"
    _require_fit(path, lora, modules, rank, use_dora)
    scale = scaling(rank, alpha, use_rslora)
    for module, factors in lora.items():
        layer: Any = transformer.get_submodule(module)
        down, up = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
        if (up.shape[0], down.shape[1]) != factors.shape:
            raise TargetsError(
                f"{key}: {module} changes a weight of shape {factors.shape}, the model's is "
                f"{(up.shape[0], down.shape[1])} (a LoRA of another model)"
            )
        down.copy_(factors.down_RI)
        up.copy_(factors.up_OR / scale)
    reset_magnitudes(transformer)
    for module, factors in lora.items():
        if factors.magnitude_O is not None:
            layer = transformer.get_submodule(module)
            layer.lora_magnitude_vector[ADAPTER].weight.copy_(factors.magnitude_O)


def _require_fit(path: Path, lora: Lora, modules: list[str], rank: int, use_dora: bool) -> None:
    key = f"lora.init_from: {path}"
    require_rank(str(path), {factors.rank for factors in lora.values()}, rank)
    if left_out := [module for module in lora if module not in set(modules)]:
        raise TargetsError(
            f"{key}: {len(left_out)} of its {len(lora)} modules are not trained here, first {left_out[0]} "
            "(widen lora.targets, lora.blocks or lora.refiners)"
        )
    if is_dora(lora) and not use_dora:
        raise TargetsError(f"{key}: it is a DoRA (set lora.use_dora: true)")

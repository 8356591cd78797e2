"""A training adapter: a frozen LoRA added to the base at strength 1 in training, and to nothing drawn or saved.

Such adapters undo the distillation of a few-step model, so that ordinary training does not break it. Ours is a peft
adapter beside the one that is trained: it is left out by switching it off, with the base's weights untouched.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from acrf_engine.model.adapter import Lora, is_dora
from acrf_engine.model.adapter_fit import refuse_dora, require_fit
from acrf_engine.model.export import read
from acrf_engine.model.lora import TRAINING_ADAPTER, set_active


@torch.no_grad()
def attach(transformer: nn.Module, path: Path, dtype: torch.dtype) -> int:
    """Add the LoRA of the file `path`, of whatever format, frozen and in `dtype`. Returns the number of its modules.

    Raises LoraError where it does not fit the model, or is a DoRA.
    """
    from peft import LoraConfig as PeftConfig
    from peft import inject_adapter_in_model

    lora, _ = read(path)
    _require_fit(path, lora, transformer)
    ranks = {module: factors.rank for module, factors in lora.items()}
    config = PeftConfig(r=1, lora_alpha=1, target_modules=list(lora), rank_pattern=ranks, alpha_pattern=ranks)
    with torch.random.fork_rng(devices=[]):
        inject_adapter_in_model(config, transformer, TRAINING_ADAPTER)
    for module, factors in lora.items():
        layer: Any = transformer.get_submodule(module)
        for half, value in ((layer.lora_A, factors.down_RI), (layer.lora_B, factors.up_OR)):
            weight = half[TRAINING_ADAPTER].weight
            weight.data = value.to(device=weight.device, dtype=dtype)
    set_active(transformer, True, training=True)
    return len(lora)


def _require_fit(path: Path, lora: Lora, transformer: nn.Module) -> None:
    """The injected LoRA may have wrapped a module already: its shape is the base layer's."""
    if is_dora(lora):
        refuse_dora(path)
    layers: dict[str, Any] = dict(transformer.named_modules())
    shapes = {
        name: (layer.out_features, layer.in_features) for name, layer in layers.items() if hasattr(layer, "in_features")
    }
    require_fit(path, {module: factors.shape for module, factors in lora.items()}, shapes)

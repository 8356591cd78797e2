"""Gradient checkpointing with a choice of blocks: chosen ones keep their input alone and are recomputed in backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop

from acrf_engine.memory_config import LARGE_MODEL, MemoryConfig
from acrf_engine.model.layout import ModelError


def recompute_blocks(transformer: nn.Module, memory: MemoryConfig, parameters: int) -> int:
    """Recompute the blocks that `memory` chooses; `parameters` is the size of the base. Returns how many blocks.

    Raises ModelError for a block that the model has not.
    """
    model: Any = transformer
    try:
        numbers = memory.recomputed(len(model.layers), parameters > LARGE_MODEL)
    except ValueError as error:
        raise ModelError(str(error)) from None
    chosen = [model.layers[number] for number in sorted(numbers)]
    if chosen and memory.recomputes_refiners:
        chosen += [*model.noise_refiner, *model.context_refiner]
    if chosen:
        model.enable_gradient_checkpointing(_only(chosen, to_the_end=memory.recomputes_all))
    return len(chosen)


def _only(chosen: list[nn.Module], to_the_end: bool) -> Callable[..., Any]:
    """`to_the_end`: a recomputed block runs through, so that the hooks after its last layers are not left out."""
    identities = {id(module) for module in chosen}

    def run(module: nn.Module, *args: Any) -> Any:
        if id(module) not in identities:
            return module(*args)
        with set_checkpoint_early_stop(not to_the_end):
            return checkpoint(module.__call__, *args, use_reentrant=False)

    return run

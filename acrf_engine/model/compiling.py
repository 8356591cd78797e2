"""torch.compile of the repeated blocks (diffusers' regional compilation), and going on without it where it fails."""

from __future__ import annotations

from typing import Any

from torch import nn


def compile_blocks(transformer: nn.Module) -> None:
    """Compile every block at its first run; shapes of other buckets are compiled when they come."""
    model: Any = transformer
    model.compile_repeated_blocks()


def is_compiled(transformer: nn.Module) -> bool:
    return any(module._compiled_call_impl is not None for module in transformer.modules())


def run_uncompiled(transformer: nn.Module) -> None:
    """Undo `compile_blocks`."""
    for module in transformer.modules():
        module._compiled_call_impl = None


def compile_errors() -> tuple[type[Exception], ...]:
    """What a step raises where its blocks cannot be compiled: no C++ compiler, or code that it cannot take."""
    from torch._dynamo.exc import TorchDynamoException

    return (TorchDynamoException,)

"""Whether a training adapter is one of this model: by names and shapes, from a file's header too; loads no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from acrf_engine.model.errors import LoraError
from acrf_engine.run.lora_files import header_of
from acrf_engine.run.lora_keys import FUSED, parse

KEY = "base.training_adapter"
Shapes = Mapping[str, tuple[int, ...]]
"""(out, in) of the weight of each Linear, by module."""


def require_fit(path: Path, adapter: Shapes, model: Shapes) -> None:
    """Raises LoraError, naming the file and the module, where the model has not what the adapter changes."""
    if not adapter:
        raise LoraError(f"{KEY}: {path}: there is no LoRA in it")
    for module, shape in adapter.items():
        if module not in model:
            raise LoraError(f"{KEY}: {path}: the model has no module {module} (an adapter of another model)")
        if shape != model[module]:
            raise LoraError(
                f"{KEY}: {path}: {module} changes a weight of shape {shape}, the model's is "
                f"{model[module]} (an adapter of another model)"
            )


def refuse_dora(path: Path) -> None:
    raise LoraError(f"{KEY}: {path}: it is a DoRA, which is no sum with the base (give a plain LoRA)")


def require_file_fits(path: Path, model: Shapes) -> None:
    """`require_fit` before anything is loaded."""
    outs: dict[str, int] = {}
    ins: dict[str, int] = {}
    for name, entry in header_of(path).tensors.items():
        if (key := parse(name)) is None:
            continue
        if key.part in ("magnitude", "dora_scale"):
            refuse_dora(path)
        fused = key.module.endswith(FUSED)
        modules = [key.module.replace(FUSED, f"attention.{one}") for one in ("to_q", "to_k", "to_v")]
        for module in modules if fused else [key.module]:
            if key.part == "up":
                outs[module] = entry.shape[0] // (3 if fused else 1)
            elif key.part == "down":
                ins[module] = entry.shape[1]
    require_fit(path, {module: (out, ins[module]) for module, out in outs.items() if module in ins}, model)

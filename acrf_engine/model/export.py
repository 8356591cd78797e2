"""A LoRA in other programs' formats; each file is read back before it counts."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from acrf_engine.model.lora import LoraError, read_lora, write_verified

Format = Literal["diffusers", "comfyui", "kohya"]
OWN_PREFIX = "transformer."


def export(source: Path, kind: Format, target: Path) -> int:
    """Write the LoRA file `source` (diffusers format, alpha folded in) as `kind`. Returns the number of modules.

    Raises LoraError where `source` is not such a file.
    """
    tensors, metadata = read_lora(source)
    strange = [name for name in tensors if not name.startswith(OWN_PREFIX) or ".lora_" not in name]
    if strange or not tensors:
        raise LoraError(f"{source}: not a LoRA in diffusers format (first strange key: {(strange or ['none'])[0]})")
    if target.exists() and target.samefile(source):
        raise LoraError(f"{target}: is the file itself (choose another --out)")
    if kind == "comfyui":
        tensors = _comfyui(tensors)
    elif kind == "kohya":
        tensors = _kohya(tensors)
    return write_verified(target, tensors, metadata)


def _comfyui(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"diffusion_model.{name.removeprefix(OWN_PREFIX)}": value for name, value in tensors.items()}


def _kohya(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    converted = {}
    for name, value in tensors.items():
        module, _, matrix = name.removeprefix(OWN_PREFIX).partition(".lora_")
        key = f"lora_unet_{module.replace('.', '_')}"
        if matrix == "A.weight":
            converted[f"{key}.lora_down.weight"] = value
            converted[f"{key}.alpha"] = torch.tensor(float(value.shape[0]))
        else:
            converted[f"{key}.lora_up.weight"] = value
    return converted

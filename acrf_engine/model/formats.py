"""A LoRA as the tensors of a file: what each program reads, and reading what each program wrote."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from acrf_engine.model.adapter import Factors, Lora, is_dora
from acrf_engine.model.errors import LoraError
from acrf_engine.run.lora_keys import FUSED, Key, Part, other_kind, parse, underscored

Format = Literal["diffusers", "comfyui", "kohya"]
PEFT_SETTINGS = "lora_adapter_metadata"
FORMATS: tuple[Format, ...] = ("diffusers", "comfyui", "kohya")
DORA_NORM = "acrf_dora_norm"
"""Metadata of a ComfyUI DoRA of ours: its dora_scale is meant for the norm of the base weight."""


def to_diffusers(lora: Lora) -> dict[str, Tensor]:
    """`transformer.<module>.lora_A/B.weight` without alpha (readers take alpha = rank), and DoRA's magnitude vector."""
    tensors = {}
    for module, factors in lora.items():
        tensors[f"transformer.{module}.lora_A.weight"] = factors.down_RI
        tensors[f"transformer.{module}.lora_B.weight"] = factors.up_OR
        if factors.magnitude_O is not None:
            tensors[f"transformer.{module}.lora_magnitude_vector"] = factors.magnitude_O
    return tensors


def to_comfyui(lora: Lora, base: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`diffusion_model.<module>.lora_A/B.weight`; for a DoRA `base` holds the weight of each of its modules.

    ComfyUI divides a dora_scale of one value a row by the length of the row of W, where DoRA divides by that of
    W + up @ down: the scale is written so that the result is DoRA's.
    """
    tensors = {}
    for module, factors in lora.items():
        tensors[f"diffusion_model.{module}.lora_A.weight"] = factors.down_RI
        tensors[f"diffusion_model.{module}.lora_B.weight"] = factors.up_OR
        if factors.magnitude_O is not None:
            weight = base[module].float()
            share = torch.linalg.norm(weight, dim=1) / torch.linalg.norm(weight + factors.delta(), dim=1)
            tensors[f"diffusion_model.{module}.dora_scale"] = (factors.magnitude_O * share)[:, None].contiguous()
    return tensors


def to_kohya(lora: Lora) -> dict[str, Tensor]:
    """`lora_unet_<module>.lora_down/up.weight` and `.alpha` = rank. Raises LoraError for a DoRA."""
    if is_dora(lora):
        raise LoraError(
            "kohya format cannot hold this DoRA: its own programs know none, and others disagree on what the scale "
            "means (use --format comfyui or diffusers, or `acrf-tui merge`)"
        )
    tensors = {}
    for module, factors in lora.items():
        key = f"lora_unet_{underscored(module)}"
        tensors[f"{key}.lora_down.weight"] = factors.down_RI
        tensors[f"{key}.lora_up.weight"] = factors.up_OR
        tensors[f"{key}.alpha"] = torch.tensor(float(factors.rank))
    return tensors


def from_file(
    tensors: dict[str, Tensor], metadata: Mapping[str, str], base: Mapping[str, Tensor] | None = None
) -> Lora:
    """The LoRA in a file's tensors, whichever of the formats it is in, in float32.

    Alpha, and the settings that diffusers keeps in its metadata, are folded in; a fused qkv becomes three modules.
    `base` is needed for a ComfyUI DoRA. Raises LoraError where a tensor is no part of a LoRA, or a part is missing.
    """
    keys: dict[str, Key] = {}
    for name in tensors:
        if (key := parse(name)) is None:
            kind = other_kind([name])
            raise LoraError(f"this is {kind}, not a LoRA" if kind else f"not a LoRA (first strange key: {name})")
        keys[name] = key
    if not keys:
        raise LoraError("not a LoRA (it holds no tensor)")
    modules: dict[str, dict[Part, Tensor]] = {}
    for name, key in keys.items():
        modules.setdefault(key.module, {})[key.part] = tensors[name]
    peft = _peft_settings(metadata)
    if peft is None and any(key.style == "raw PEFT" for key in keys.values()) and not _has_alpha(modules):
        raise LoraError("raw PEFT weights without alpha: nothing in the file says how strong they are")
    lora: Lora = {}
    for module, parts in modules.items():
        lora.update(_unfused(module, _factors(module, parts, peft, metadata, base)))
    return lora


def _factors(
    module: str,
    parts: dict[Part, Tensor],
    peft: dict[str, Any] | None,
    metadata: Mapping[str, str],
    base: Mapping[str, Tensor] | None,
) -> Factors:
    if "down" not in parts or "up" not in parts:
        raise LoraError(f"{module}: only {', '.join(parts)} in the file (both factors are needed)")
    down, up = parts["down"].float(), parts["up"].float()
    if down.dim() > 2 and down.shape[2:].numel() == 1:  # a 1x1 convolution, as some write Linear
        down, up = down.flatten(1), up.flatten(1)
    if down.dim() != 2 or up.dim() != 2 or down.shape[0] != up.shape[1]:
        raise LoraError(f"{module}: factors of shapes {tuple(down.shape)} and {tuple(up.shape)} make no change")
    rank = down.shape[0]
    if "alpha" in parts:
        up = up * (float(parts["alpha"]) / rank)
    elif peft is not None:
        alpha = _of_module(peft.get("alpha_pattern"), module, peft.get("lora_alpha", rank))
        up = up * (alpha / math.sqrt(rank) if peft.get("use_rslora") else alpha / rank)
    magnitude = parts["magnitude"].float().flatten() if "magnitude" in parts else None
    if "dora_scale" in parts:
        magnitude = _magnitude(module, parts["dora_scale"].float(), Factors(down, up), metadata, base)
    return Factors(down, up, magnitude)


def _magnitude(
    module: str, scale: Tensor, factors: Factors, metadata: Mapping[str, str], base: Mapping[str, Tensor] | None
) -> Tensor:
    if metadata.get(DORA_NORM) != "base" or base is None or scale.numel() != factors.shape[0]:
        raise LoraError(
            f"{module}: a dora_scale, which programs read differently, and which says nothing without the base model "
            "(use the diffusers file of this DoRA)"
        )
    weight = base[module].float()
    return scale.flatten() * torch.linalg.norm(weight + factors.delta(), dim=1) / torch.linalg.norm(weight, dim=1)


def _unfused(module: str, factors: Factors) -> Lora:
    if not module.endswith(f".{FUSED}"):
        return {module: factors}
    block = module.removesuffix(".qkv")
    ups = factors.up_OR.chunk(3)
    magnitudes = (None,) * 3 if factors.magnitude_O is None else factors.magnitude_O.chunk(3)
    return {
        f"{block}.to_{letter}": Factors(factors.down_RI, up, magnitude)
        for letter, up, magnitude in zip("qkv", ups, magnitudes, strict=True)
    }


def _has_alpha(modules: dict[str, dict[Part, Tensor]]) -> bool:
    return any("alpha" in parts for parts in modules.values())


def _peft_settings(metadata: Mapping[str, str]) -> dict[str, Any] | None:
    """What diffusers writes beside weights that it saves with their scale left out."""
    try:
        found = json.loads(metadata.get(PEFT_SETTINGS, "null"))
    except ValueError:
        return None
    if not isinstance(found, dict):
        return None
    prefix = "transformer."
    settings = {key.removeprefix(prefix): value for key, value in found.items() if key.startswith(prefix)}
    return settings or None


def _of_module(patterns: Any, module: str, otherwise: float) -> float:
    for pattern, value in patterns.items() if isinstance(patterns, dict) else ():
        if re.fullmatch(rf"(.*\.)?({pattern})", module):
            return float(value)
    return float(otherwise)

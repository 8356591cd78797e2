"""The names that trainers give to a LoRA's tensors: which format, which module, which part of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Part = Literal["down", "up", "alpha", "magnitude", "dora_scale"]

STYLES = (
    ("base_model.model.", "raw PEFT"),
    ("transformer.", "diffusers"),
    ("diffusion_model.", "ComfyUI"),
    ("model.diffusion_model.", "ComfyUI"),
    ("lora_unet_", "kohya"),
    ("lora_transformer_", "OneTrainer"),
    ("lycoris_", "LyCORIS"),
    ("unet.", "diffusers"),
    ("lora_te", "kohya"),
)
"""Prefix of a tensor's name, and the format that has it."""
BARE = "diffusers, without a prefix"

PARTS: dict[str, Part] = {
    "lora_A.weight": "down",
    "lora_B.weight": "up",
    "lora_A.default.weight": "down",
    "lora_B.default.weight": "up",
    "lora_down.weight": "down",
    "lora_up.weight": "up",
    "lora.down.weight": "down",
    "lora.up.weight": "up",
    "alpha": "alpha",
    "lora_magnitude_vector": "magnitude",
    "lora_magnitude_vector.weight": "magnitude",
    "lora_magnitude_vector.default.weight": "magnitude",
    "dora_scale": "dora_scale",
}
KEY = re.compile(rf"(?P<module>.+?)\.(?P<part>{'|'.join(re.escape(part) for part in PARTS)})")

OTHER_KINDS = (
    (re.compile(r"\.lokr_(w|t)"), "LoKr"),
    (re.compile(r"\.hada_(w|t)"), "LoHa"),
    (re.compile(r"\.oft_|\.boft_"), "OFT"),
    (re.compile(r"\.glora_|\.(a1|a2|b1|b2)\.weight$"), "GLoRA"),
    (re.compile(r"\.on_input$"), "IA3"),
    (re.compile(r"\.(lora_mid|lora_t)"), "LoCon"),
    (re.compile(r"\.(diff|diff_b)$"), "full difference"),
)
"""Adapters that are no LoRA of two factors, by a part of a tensor's name."""

WORDS = (
    "noise_refiner", "context_refiner", "feed_forward", "adaLN_modulation", "attention_norm1", "attention_norm2",
    "ffn_norm1", "ffn_norm2", "norm_q", "norm_k", "to_q", "to_k", "to_v", "to_out", "cap_embedder", "t_embedder",
    "x_embedder", "all_x_embedder", "all_final_layer", "final_layer",
)  # fmt: skip
"""Names of Z-Image's modules that hold an underscore themselves."""
Z_IMAGE = re.compile(r"(layers|noise_refiner|context_refiner)_\d+_|(cap|t|x|all_x)_embedder|(all_)?final_layer")
FUSED = "attention.qkv"
"""Of checkpoints in their authors' own layout: to_q, to_k and to_v in one."""


@dataclass(frozen=True)
class Key:
    """A tensor's name, taken apart. `module` is as diffusers names it, where the format lets that be known."""

    style: str
    module: str
    part: Part


def parse(name: str) -> Key | None:
    """The name of a tensor of a LoRA; None where it is no such name."""
    found = KEY.fullmatch(name)
    if found is None:
        return None
    style, module = _without_prefix(found["module"])
    if style in ("kohya", "OneTrainer", "LyCORIS"):
        module = dotted(module)
    module = re.sub(r"\.attention\.out$", ".attention.to_out.0", module)
    return Key(style, module, PARTS[found["part"]])


def other_kind(names: list[str]) -> str:
    """The kind of an adapter that is no LoRA of two factors, by its tensors' names; empty where none is known."""
    return next((kind for pattern, kind in OTHER_KINDS if any(pattern.search(name) for name in names)), "")


def dotted(module: str) -> str:
    """layers_0_attention_to_out_0 -> layers.0.attention.to_out.0; names that are not Z-Image's stay as they are."""
    if not Z_IMAGE.match(module):
        return module
    pieces = re.split(rf"(?:^|_)({'|'.join(sorted(WORDS, key=len, reverse=True))})(?=_|$)", module)
    return ".".join(
        piece if piece in WORDS else piece.strip("_").replace("_", ".") for piece in pieces if piece.strip("_")
    )


def underscored(module: str) -> str:
    """layers.0.attention.to_out.0 -> layers_0_attention_to_out_0"""
    return module.replace(".", "_")


def _without_prefix(module: str) -> tuple[str, str]:
    for prefix, style in STYLES:
        if module.startswith(prefix):
            rest = module.removeprefix(prefix)
            if style == "raw PEFT":  # a whole pipeline's adapter has the transformer's name in it as well
                rest = rest.removeprefix("transformer.")
            return style, rest
    return BARE, module

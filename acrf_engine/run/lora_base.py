"""Which base model a LoRA was made for, by its modules' names and sizes."""

from __future__ import annotations

import re
from collections.abc import Mapping

Z_IMAGE_WIDTH = 3840
UNKNOWN = "unknown"
Shapes = Mapping[str, tuple[int, int]]


def base_model(modules: Shapes) -> str:
    """The base, of each module's weight shape (out, in); `unknown ...` says what is seen where none is known.

    Z-Image and Lumina share names, so do the FLUX models: widths tell them apart.
    """
    shapes = {name.replace(".", "_"): shape for name, shape in modules.items()}
    names = " ".join(shapes)

    def has(pattern: str) -> bool:
        return re.search(pattern, names) is not None

    if has(r"(^| )layers_\d+_(attention|feed_forward)_"):
        return _next_dit(shapes)
    if has("img_attn_qkv|txt_attn_qkv"):
        return "HunyuanVideo"
    if has("single_transformer_blocks|single_blocks|double_blocks"):
        return _by_width(shapes, {3072: "FLUX.1 or Chroma (3072 wide)", 6144: "FLUX.2 (6144 wide)"}, "a FLUX model")
    if has(r"transformer_blocks_\d+_(img|txt)_m"):
        return _by_width(shapes, {3072: "Qwen-Image"}, "named as Qwen-Image")
    if has(r"joint_blocks_\d+|transformer_blocks_\d+_attn_add_"):
        return "Stable Diffusion 3"
    if has(r"(^| )blocks_\d+_(self_attn|cross_attn|ffn)_"):
        return "Wan"
    if has(r"(down|up|mid|input|output|middle)_blocks?"):
        context = {name: (out, width) for name, (out, width) in shapes.items() if re.search(r"attn2_to_[kv]$", name)}
        known = {768: "Stable Diffusion 1.x", 1024: "Stable Diffusion 2.x", 2048: "Stable Diffusion XL"}
        return _by_width(context, known, "a Stable Diffusion U-Net")
    return f"{UNKNOWN} (modules such as {next(iter(modules), 'none')})"


def _next_dit(shapes: Shapes) -> str:
    of_the_width = {name: shape for name, shape in shapes.items() if re.search(r"(to_[qkv]|qkv|w[13])$", name)}
    known = {Z_IMAGE_WIDTH: "Z-Image (3840 wide)", 2304: "Lumina-Image 2.0 (2304 wide)", 128: "the tiny Z-Image"}
    return _by_width(of_the_width or shapes, known, f"named as Z-Image (which is {Z_IMAGE_WIDTH} wide)")


def _by_width(shapes: Shapes, known: Mapping[int, str], otherwise: str) -> str:
    widths = [width for shape in shapes.values() for width in reversed(shape)]
    found = next((known[width] for width in widths if width in known), "")
    return found or f"{UNKNOWN}: {otherwise}" + (f", {widths[0]} wide" if widths else "")

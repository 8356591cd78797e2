"""What a run will take on the card, part by part, computed from the checkpoint's headers and configs; loads no torch.

A run has phases that are never on the card together: caching (text encoder and VAE), training, and, on top of what
training keeps, a preview. What is needed is the largest of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acrf_engine.config import RunConfig
from acrf_engine.memory_config import LARGE_MODEL, MemoryConfig
from acrf_engine.model import activations
from acrf_engine.model.activations import Batch, Lora, Shape
from acrf_engine.model.kept import is_quantised
from acrf_engine.model.layout import Checkpoint, ModelError
from acrf_engine.model.targets import LAYER
from acrf_engine.run.lora_files import header_of

CONTEXT = 700 << 20
"""What CUDA, its libraries and the allocator's gaps take: a guess, drivers and cards differ."""
NF4_BLOCK = 64
ENCODER_MAPS, DECODER_MAPS = 4.5, 3.8
"""How many maps of the VAE's widest full-size layer are alive at once."""
MOST_CAPTION_TOKENS = 512
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Estimate:
    """Bytes. `phases` are sums of what is on the card together; `parts` are those of training."""

    parts: dict[str, int]
    """`activations`: the most that the graph keeps; `backward`: what comes and goes beside it."""
    phases: dict[str, int]
    ram: int
    """Of the base kept in RAM, where it is offloaded."""

    @property
    def total(self) -> int:
        return max(self.phases.values())


def estimate(
    config: RunConfig,
    checkpoint: Checkpoint,
    trained: list[str],
    *,
    on_gpu: bool,
    optimizer_state: int,
    picture: tuple[int, int],
    caption_tokens: int = MOST_CAPTION_TOKENS,
) -> Estimate:
    """The estimate of a run.

    Args:
        trained: names of the Linears with LoRA. optimizer_state: bytes that the optimizer keeps.
        picture: sides in pixels of the largest bucket. caption_tokens: of the longest caption.

    Raises:
        ModelError: where a file cannot be read, or a chosen block is not there.
    """
    memory = config.memory
    width = 2 if memory.dtype == "bf16" or (memory.dtype == "auto" and on_gpu) else 4
    shapes = checkpoint.transformer_shapes()
    shape, lora = _shape(checkpoint, shapes), _lora(config, trained)
    batch = Batch(config.batch_size, picture[0] * picture[1] // 256, min(caption_tokens, MOST_CAPTION_TOKENS))
    try:
        chosen = memory.recomputed(shape.blocks, sum(map(math.prod, shapes.values())) > LARGE_MODEL)
    except ValueError as error:
        raise ModelError(str(error)) from None
    stored, block = _stored(shapes, memory.quantization, width), _block_weights(shapes, width)
    waiting = sum(math.prod(one) * width for name, one in shapes.items() if memory.offload and is_quantised(name, one))
    parameters = sum(_lora_size(shapes[f"{name}.weight"], config) for name in trained)
    parts = {
        "base weights": stored - waiting + (block if memory.offload else 0),
        "LoRA": parameters * 4,
        "gradients": parameters * 4,
        "optimizer": optimizer_state,
        "activations": activations.kept(shape, lora, batch, width, chosen, bool(chosen) and memory.recomputes_refiners),
        "backward": activations.working(shape, lora, batch, width) + _unpacked(shapes, memory, width, block),
    }
    if config.optimization.ema_decay:
        parts["moving average"] = parameters * 4
    if path := config.base.training_adapter:
        entries = header_of(Path(path)).tensors.values()
        parts["training adapter"] = sum(math.prod(entry.shape) for entry in entries) * width
    context = CONTEXT if on_gpu else 0
    if on_gpu:
        parts["CUDA (rough)"] = context
    parts = {name: size for name, size in parts.items() if size}
    resting = sum(parts.get(name, 0) for name in STAYING)
    phases = {
        "caching": text_encoder_bytes(checkpoint, memory.text_encoder, width)
        + vae_bytes(checkpoint, picture, encode=True)
        + context,
        "training": sum(parts.values()),
        "preview": resting + _drawing(shape, batch, width) + vae_bytes(checkpoint, picture, encode=False),
    }
    return Estimate(parts, phases, waiting)


STAYING = ("base weights", "LoRA", "optimizer", "moving average", "training adapter", "CUDA (rough)")
"""What stays while a preview is drawn; the gradients are dropped after each step."""


def text_encoder_bytes(checkpoint: Checkpoint, quantization: str, width: int) -> int:
    """Weights of the text encoder, and the hidden states of one caption, of which it returns all layers'."""
    config = checkpoint.part_config("text_encoder")
    weights = sum(
        _packed(shape, quantization if _in_a_layer(name, shape) else "none", width)
        for name, shape in checkpoint.part_shapes("text_encoder").items()
    )
    layers, dim = int(config.get("num_hidden_layers", 36)), int(config.get("hidden_size", 2560))
    return weights + (layers + 1) * dim * MOST_CAPTION_TOKENS * width


def vae_bytes(checkpoint: Checkpoint, picture: tuple[int, int], *, encode: bool) -> int:
    """The VAE in fp32, and its maps at the size of the picture."""
    weights = sum(math.prod(shape) * 4 for shape in checkpoint.part_shapes("vae").values())
    channels = [int(one) for one in checkpoint.part_config("vae").get("block_out_channels", (128, 256, 512, 512))]
    maps = ENCODER_MAPS * channels[0] if encode else DECODER_MAPS * channels[min(1, len(channels) - 1)]
    return weights + int(maps * picture[0] * picture[1] * 4)


def _shape(checkpoint: Checkpoint, shapes: Shapes) -> Shape:
    config: dict[str, Any] = checkpoint.part_config("transformer")
    found = shapes.get("layers.0.feed_forward.w1.weight")
    dim = int(config.get("dim", 3840))
    return Shape(
        dim,
        found[0] if found else dim * 8 // 3,
        int(config.get("n_heads", 30)),
        int(config.get("n_layers", 30)),
        int(config.get("n_refiner_layers", 2)),
    )


def _lora(config: RunConfig, trained: list[str]) -> Lora:
    blocks: dict[int, set[str]] = {}
    for name in trained:
        if layer := LAYER.match(name):
            blocks.setdefault(int(layer[1]), set()).add(name[layer.end() :])
    settings = config.lora
    return Lora(
        config.network_dim,
        {number: frozenset(names) for number, names in blocks.items()},
        settings.use_dora,
        settings.dropout > 0,
        any(LAYER.match(name) is None for name in trained),
    )


def _lora_size(shape: tuple[int, ...], config: RunConfig) -> int:
    return config.network_dim * sum(shape) + (shape[0] if config.lora.use_dora else 0)


def _stored(shapes: Shapes, quantization: str, width: int) -> int:
    return sum(
        _packed(shape, quantization if is_quantised(name, shape) else "none", width) for name, shape in shapes.items()
    )


def _packed(shape: tuple[int, ...], quantization: str, width: int) -> int:
    """Bytes of one tensor. NF4 has a byte of scale to 64 values, and a float to 256 such scales; int8 a float a row."""
    count = math.prod(shape)
    match quantization:
        case "nf4":
            scales = -(-count // NF4_BLOCK)
            return -(-count // 2) + scales + 4 * -(-scales // 256)
        case "int8":
            return count + 4 * shape[0]
        case "fp8":
            return count
    return count * width


def _block_weights(shapes: Shapes, width: int) -> int:
    """Bytes of the largest block's weights in the compute dtype."""
    sizes: dict[str, int] = {}
    for name, shape in shapes.items():
        if layer := LAYER.match(name):
            sizes[layer[1]] = sizes.get(layer[1], 0) + math.prod(shape) * width
    return max(sizes.values(), default=0)


def _unpacked(shapes: Shapes, memory: MemoryConfig, width: int, block: int) -> int:
    """What is unpacked to the compute dtype for a moment: with fp8 a block's weights, else the largest one."""
    match memory.quantization:
        case "none":
            return 0
        case "fp8":
            return block
    return max(math.prod(shape) for name, shape in shapes.items() if is_quantised(name, shape)) * width


def _drawing(shape: Shape, batch: Batch, width: int) -> int:
    """One picture through a block without a graph: the gate's two halves and their product, and the residuals."""
    tokens = Batch(1, batch.picture_tokens, batch.caption_tokens).tokens
    return tokens * (3 * shape.hidden * width + 4 * shape.dim * 4)


def _in_a_layer(name: str, shape: tuple[int, ...]) -> bool:
    return name.endswith(".weight") and len(shape) == 2 and "layers." in name

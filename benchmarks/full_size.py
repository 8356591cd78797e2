"""A folder in the layout and with the sizes of the 6 B checkpoint, without its bytes: for `acrf-tui check`.

The real classes are built without memory (torch's meta device), the names and shapes of their tensors written as bf16
safetensors headers, in shards with their index, and the files made as long as they would be, with holes for weights.
Nothing can be trained on it.

python -m benchmarks.full_size FOLDER
"""

from __future__ import annotations

import json
import math
import shutil
import struct
import sys
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, ZImageTransformer2DModel
from transformers import Qwen3Config, Qwen3Model

from acrf_engine.config import ASSETS

SHARD_BYTES = 5 * 10**9
TEXT_ENCODER = {
    "hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "num_attention_heads": 32,
    "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936, "tie_word_embeddings": True,
}  # fmt: skip
VAE = {
    "sample_size": 1024, "latent_channels": 16, "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2,
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
    "norm_num_groups": 32, "shift_factor": 0.1159, "scaling_factor": 0.3611,
    "use_quant_conv": False, "use_post_quant_conv": False,
}  # fmt: skip


def full_size(folder: Path) -> dict[str, int]:
    """Write the folder; returns the number of parameters of each part. Tokenizer and scheduler are those that ship."""
    folder.mkdir(parents=True)
    tiny = ASSETS / "tiny"
    for part in ("tokenizer", "scheduler"):
        shutil.copytree(tiny / part, folder / part)
    shutil.copy(tiny / "model_index.json", folder)
    with torch.device("meta"):
        text_config = Qwen3Config(**TEXT_ENCODER)
        parts = {"transformer": ZImageTransformer2DModel(), "vae": AutoencoderKL(**VAE)}
        counts = {name: _write(model, folder / name, dict(model.config)) for name, model in parts.items()}
        counts["text_encoder"] = _write(
            Qwen3Model(text_config), folder / "text_encoder", text_config.to_dict(), "model"
        )
    return counts


def _write(model: Any, folder: Path, config: dict[str, Any], stem: str = "diffusion_pytorch_model") -> int:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config, default=str, indent=2), encoding="utf-8")
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    filled = 0
    for name, tensor in model.state_dict().items():
        size = 2 * tensor.numel()
        if filled + size > SHARD_BYTES and shards[-1]:
            shards.append({})
            filled = 0
        shards[-1][name] = tuple(tensor.shape)
        filled += size
    files = {}
    for number, shapes in enumerate(shards, 1):
        of_several = f"-{number:05d}-of-{len(shards):05d}" if len(shards) > 1 else ""
        file = folder / f"{stem}{of_several}.safetensors"
        _write_shard(file, shapes)
        files |= dict.fromkeys(shapes, file.name)
    if len(shards) > 1:
        size = sum(2 * math.prod(shape) for shapes in shards for shape in shapes.values())
        index = {"metadata": {"total_size": size}, "weight_map": files}
        (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")
    return sum(math.prod(shape) for shapes in shards for shape in shapes.values())


def _write_shard(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """Header and length of a bf16 file; what lies between is a hole."""
    entries, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * math.prod(shape)
        entries[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    header = json.dumps(entries).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + end)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    for part, count in full_size(Path(sys.argv[1])).items():
        print(f"{part:12}  {count / 1e6:,.1f} M parameters")

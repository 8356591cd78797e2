"""One cell of `benchmarks.gpu`, in a process of its own; prints what it found as one line of JSON.

python -m benchmarks.gpu_cell FOLDER CELL             # CELL is JSON
python -m benchmarks.gpu_cell --make FOLDER [--tiny]  # the model with random weights
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from acrf_engine.config import ASSETS, RunConfig, build_config
from acrf_engine.data.batches import BatchPlan
from acrf_engine.data.cache import CachedDataset, Example
from acrf_engine.data.scan import Picture
from acrf_engine.method.losses import composite
from acrf_engine.method.weighting import min_snr_weight
from acrf_engine.model.device import choose_device
from acrf_engine.model.layout import Checkpoint
from acrf_engine.model.zimage import LATENT_FACTOR
from acrf_engine.run.folder import RunFolder
from acrf_engine.training.preparation import Prepared, base_fingerprint, load_for_training, make_method
from acrf_engine.training.trainer import Trainer
from benchmarks.gpu import Cell

CAPTION_TOKENS = 64
CHANNELS = 16
TARGETS = r"layers\.\d+\.attention\.(to_q|to_k|to_v|to_out\.0)"
Step = Callable[[], Any]


def make(folder: Path, tiny: bool) -> None:
    """Write the model: of full size with random bf16 weights made on the GPU, or the tiny one that ships."""
    if tiny:
        shutil.copytree(ASSETS / "tiny", folder)
        return
    if not torch.cuda.is_available():
        sys.exit("no GPU is at hand: nothing of full size can be measured (--tiny goes through all cells without one)")
    from diffusers import ZImageTransformer2DModel

    from benchmarks.full_size import full_size

    full_size(folder)
    shutil.rmtree(folder / "transformer")
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("cuda"):
            model = ZImageTransformer2DModel()
    finally:
        torch.set_default_dtype(before)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("_pad_token"):  # torch.empty at construction
                parameter.normal_(std=0.02)
    model.save_pretrained(str(folder / "transformer"), max_shard_size="5GB")


def found(cell: Cell, model: Path) -> dict[str, Any]:
    """`step_s`, and on a GPU `peak_bytes` and its name; or `failed`, where it does not fit."""
    device = choose_device("auto")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    with tempfile.TemporaryDirectory() as run:
        try:
            step = plain_step(cell, model, device) if cell.plain else engine_step(cell, model, device, Path(run))
            seconds = timed(step, cell, device)
        except torch.OutOfMemoryError:
            return {"failed": "out of memory", "gpu": name}
    peak = torch.cuda.max_memory_reserved(device) if device.type == "cuda" else None
    return {"step_s": statistics.median(seconds), "peak_bytes": peak, "gpu": name}


def timed(step: Step, cell: Cell, device: torch.device) -> list[float]:
    """Seconds of each step after those to warm up, with all that it left to the GPU."""
    seconds = []
    for number in range(cell.warm_up + cell.steps):
        begin = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if number >= cell.warm_up:
            seconds.append(time.perf_counter() - begin)
    return seconds


def engine_step(cell: Cell, model: Path, device: torch.device, run: Path) -> Step:
    """The trainer's own step on latents and captions of the cell's sizes."""
    config = build_config(
        {"model": str(model), "batch_size": cell.batch, "gradient_accumulation": 1, "optimizer": "AdamW",
         "scheduler": "constant", "steps": 1_000_000, "resolution": cell.side, "memory": cell.memory}
    )  # fmt: skip
    return Trainer(config, RunFolder(run), _prepared(config, cell, device), lambda _event: None).train_step


def _prepared(config: RunConfig, cell: Cell, device: torch.device) -> Prepared:
    checkpoint = Checkpoint.of(config)
    dtype = torch.bfloat16
    transformer, modules, trainable = load_for_training(config, checkpoint, device, dtype, lambda _event: None)
    latents_BCHW, captions = inputs(cell, transformer)
    examples = tuple(
        Example(index, Picture(Path(f"{index}.png"), str(index), cell.side, cell.side, "", True, 1),
                (cell.side, cell.side), latents_BCHW[index], captions[index])
        for index in range(cell.batch)
    )  # fmt: skip
    plan = BatchPlan([example.bucket for example in examples], [1] * cell.batch, cell.batch, config.seed)
    return Prepared(
        checkpoint, transformer, trainable, modules, CachedDataset(examples, {"": captions[0]}, "benchmark"),
        CachedDataset((), {}, "benchmark"), plan, make_method(config, checkpoint, plan, cell.side), device, dtype,
        cell.side, [""], base_fingerprint(config, checkpoint),
    )  # fmt: skip


def plain_step(cell: Cell, model: Path, device: torch.device) -> Step:
    """The same step as one would write it with diffusers and peft: no checks, no events, no checkpoints."""
    from diffusers import ZImageTransformer2DModel
    from diffusers.training_utils import cast_training_params
    from peft import LoraConfig

    transformer = ZImageTransformer2DModel.from_pretrained(str(model / "transformer"), dtype=torch.bfloat16).to(device)
    transformer.requires_grad_(False)
    transformer.add_adapter(LoraConfig(r=16, lora_alpha=16, target_modules=TARGETS))
    cast_training_params(transformer, dtype=torch.float32)
    if cell.memory["gradient_checkpointing"] == "on":
        transformer.enable_gradient_checkpointing()
    transformer.train()
    parameters = [parameter for parameter in transformer.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4)
    latents_BCHW, captions = inputs(cell, transformer)
    latents_BCHW = latents_BCHW.to(device)
    captions = [caption_LD.to(device, torch.bfloat16) for caption_LD in captions]

    def step() -> None:
        sigma_B = torch.rand(cell.batch, device=device).clamp(0.001, 0.999)
        noise_BCHW = torch.randn_like(latents_BCHW)
        mix = sigma_B.view(-1, 1, 1, 1)
        x_BCHW = (mix * noise_BCHW + (1 - mix) * latents_BCHW).to(torch.bfloat16)
        output = transformer(list(x_BCHW.unsqueeze(2).unbind(0)), 1 - sigma_B, captions, return_dict=False)[0]
        prediction_BCHW = -torch.stack([item.float() for item in output]).squeeze(2)
        parts = composite(prediction_BCHW, noise_BCHW - latents_BCHW)
        (min_snr_weight(sigma_B, 5.0) * parts.composite_B).mean().backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def inputs(cell: Cell, transformer: nn.Module) -> tuple[Tensor, list[Tensor]]:
    """Random latents [B, 16, side / 8, side / 8], and a caption of 64 tokens for each, float32 on the CPU."""
    model: Any = transformer
    side = cell.side // LATENT_FACTOR
    source = torch.Generator().manual_seed(0)
    latents_BCHW = torch.randn(cell.batch, CHANNELS, side, side, generator=source)
    width = model.config.cap_feat_dim
    return latents_BCHW, [torch.randn(CAPTION_TOKENS, width, generator=source) for _ in range(cell.batch)]


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--make", folder]:
            make(Path(folder), tiny=False)
        case ["--make", folder, "--tiny"]:
            make(Path(folder), tiny=True)
        case [folder, described]:
            print(json.dumps(found(Cell(**json.loads(described)), Path(folder))))
        case _:
            sys.exit(__doc__)

"""One setting of `benchmarks.card` at every size, a line of JSON each: `python -m benchmarks.card_cells JSON`."""

from __future__ import annotations

import gc
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from acrf_engine.check import check
from acrf_engine.config import DatasetSource, RunConfig, build_config
from acrf_engine.data.cache import CachedDataset, Example
from acrf_engine.data.scan import scan
from acrf_engine.method.anchors import scheduler_anchors
from acrf_engine.method.losses import composite
from acrf_engine.method.weighting import min_snr_weight
from acrf_engine.model.device import choose_device, choose_dtype
from acrf_engine.model.layout import Checkpoint
from acrf_engine.run.folder import RunFolder
from acrf_engine.training.preparation import Data, Prepared, with_model
from acrf_engine.training.threads import training_threads
from acrf_engine.training.trainer import Trainer
from benchmarks.card import Cell, Setting

CAPTION_TOKENS = {True: 256, False: 16}
WARM_UP, STEPS = {False: 3, True: 1}, {False: 8, True: 2}
"""Steps that do not count, and those that do; by whether it is a quick look."""


def measure(setting: Setting, model: str, sizes: list[tuple[int, int]], folder: Path, quick: bool) -> Iterator[Cell]:
    """A cell for every size, the small ones first. Out of memory is a result, and the next size is still tried."""
    torch.set_num_threads(training_threads())
    loaded: Any = None
    for side, batch in sizes:
        config = _config(setting, model, folder, side, batch)
        data = _data(config, side, batch)
        try:
            if setting.plain:
                loaded = loaded or _plain_model(config)
                seconds, peak = _timed(_plain_step(*loaded, data), quick)
                yield Cell(side, batch, seconds, peak)
            else:
                loaded = _prepared(config, data, side) if loaded is None else _with_data(config, loaded, data, side)
                trainer = Trainer(config, RunFolder(folder / "run"), loaded, lambda _event: None)
                seconds, peak = _timed(trainer.train_step, quick)
                yield Cell(side, batch, seconds, peak, _estimate(config), _waits(trainer))
                del trainer
        except torch.OutOfMemoryError:
            yield Cell(side, batch, failed="out of memory")
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _config(setting: Setting, model: str, folder: Path, side: int, batch: int) -> RunConfig:
    photos = folder / f"photos-{side}"
    if not photos.exists():
        from PIL import Image

        photos.mkdir()
        Image.new("RGB", (side, side)).save(photos / "0.png")
        (photos / "0.txt").write_text("a photo " * 120, encoding="utf-8")
    memory: dict[str, Any] = {
        "gradient_checkpointing": "on" if setting.recompute else "off",
        "compile": setting.compile,
        "offload": setting.base == "offload",
        "quantization": setting.base if setting.base in ("fp8", "int8", "nf4") else "none",
    }
    values = {"model": model, "dataset": str(photos), "resolution": side, "batch_size": batch, "steps": 10_000}
    return build_config({**values, "gradient_accumulation": 1, "memory": memory})


def _data(config: RunConfig, side: int, batch: int) -> Data:
    """Latents and captions of the right shapes, at random: what they hold costs neither time nor memory."""
    source = torch.Generator().manual_seed(0)
    (picture,) = scan([DatasetSource(path=str(one.path)) for one in config.sources()]).pictures
    checkpoint = Checkpoint.of(config)
    width = checkpoint.part_config("transformer")["cap_feat_dim"]
    tokens = CAPTION_TOKENS[config.model != "tiny"]
    captions = {"": torch.randn(8, width, generator=source)}
    examples = tuple(
        Example(
            index,
            picture,
            (side, side),
            torch.randn(16, side // 8, side // 8, generator=source),
            torch.randn(tokens, width, generator=source),
        )
        for index in range(batch)
    )
    return Data(CachedDataset(examples, captions, "random"), CachedDataset((), captions, "none"), ["nothing"])


def _prepared(config: RunConfig, data: Data, side: int) -> Prepared:
    device = choose_device(config.memory.device)
    return with_model(config, Checkpoint.of(config), data, device, choose_dtype(config.memory.dtype, device), side)


def _with_data(config: RunConfig, prepared: Prepared, data: Data, side: int) -> Prepared:
    """The model as it is loaded already, with other data."""
    from acrf_engine.data.batches import BatchPlan
    from acrf_engine.training.preparation import make_method

    buckets = [example.bucket for example in data.dataset.examples]
    plan = BatchPlan(buckets, [1] * len(buckets), config.batch_size, 0)
    method = make_method(config, prepared.checkpoint, plan, side)
    return replace(prepared, dataset=data.dataset, plan=plan, method=method, resolution=side)


def _plain_model(config: RunConfig) -> tuple[Any, Any, torch.device, torch.dtype]:
    """Transformer, optimizer, device and dtype, as one sets them up with diffusers, peft and bitsandbytes."""
    import bitsandbytes
    from diffusers.models.transformers.transformer_z_image import ZImageTransformer2DModel
    from peft import LoraConfig

    device = choose_device(config.memory.device)
    dtype = choose_dtype(config.memory.dtype, device)
    folder = Checkpoint.of(config).folder / "transformer"
    transformer = ZImageTransformer2DModel.from_pretrained(str(folder), dtype=dtype).requires_grad_(False).to(device)
    targets = r"layers\.\d+\.attention\.(to_q|to_k|to_v|to_out\.0)"
    transformer.add_adapter(LoraConfig(r=config.network_dim, lora_alpha=config.network_dim, target_modules=targets))
    trained = [parameter for parameter in transformer.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.data = parameter.data.float()
    if config.memory.gradient_checkpointing == "on":
        transformer.enable_gradient_checkpointing()
    transformer.train()
    return transformer, bitsandbytes.optim.AdamW8bit(trained, lr=1e-6, weight_decay=0.01), device, dtype


def _plain_step(
    transformer: Any, optimizer: Any, device: torch.device, dtype: torch.dtype, data: Data
) -> Callable[[], Any]:
    """The same step without deck, events and checks, and with draws on the device."""
    examples = data.dataset.examples
    latents = torch.stack([example.latent_CHW for example in examples]).to(device)
    captions = [example.caption_LD.to(device, dtype) for example in examples]
    anchors = scheduler_anchors(10).to(device)
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def step() -> None:
        sigma = anchors[torch.randint(len(anchors), (len(latents),), device=device)].clamp(0.001, 0.999)
        noise = torch.randn_like(latents)
        mix = sigma.view(-1, 1, 1, 1)
        x = (mix * noise + (1 - mix) * latents).to(dtype)
        output = transformer(list(x.unsqueeze(2).unbind(0)), 1 - sigma, captions, return_dict=False)[0]
        prediction = -torch.stack([item.float() for item in output]).squeeze(2)
        loss = (min_snr_weight(sigma, 5.0) * composite(prediction, noise - latents).composite_B).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()

    return step


def _timed(step: Callable[[], Any], quick: bool) -> tuple[float, int]:
    """Median seconds of a step, and the most bytes that torch has reserved on the card."""
    cuda = torch.cuda.is_available()
    for _ in range(WARM_UP[quick]):
        step()
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    times = []
    for _ in range(STEPS[quick]):
        begun = time.perf_counter()
        step()
        if cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begun)
    return statistics.median(times), torch.cuda.max_memory_reserved() if cuda else 0


def _waits(trainer: Trainer) -> float:
    """How often one more micro-batch in a step waits for the card."""
    if not torch.cuda.is_available():
        return 0.0
    counts = []
    for micro_batches in (1, 3):
        trainer.config = trainer.config.model_copy(update={"gradient_accumulation": micro_batches})
        torch.cuda.set_sync_debug_mode("warn")
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            trainer.train_step()
        torch.cuda.set_sync_debug_mode("default")
        counts.append(sum("synchroniz" in str(one.message) for one in told))
    return (counts[1] - counts[0]) / 2


def _estimate(config: RunConfig) -> int:
    """What `acrf-tui check` says that training takes, in bytes."""
    report = check(config, "card", Path(config.sources()[0].path))
    return int(report.memory_phases.get("training", 0))


if __name__ == "__main__":
    order = json.loads(sys.argv[1])
    chosen = Setting(**order["setting"])
    for cell in measure(chosen, order["model"], order["sizes"], Path(order["folder"]), order["quick"]):
        print(json.dumps(asdict(cell)), flush=True)

"""Preflight: what a config will do, and whether it can; trains nothing and loads no torch."""

from __future__ import annotations

import math
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import platformdirs

from acrf_engine.config import DatasetSource, RunConfig, dataset_folder
from acrf_engine.data.buckets import fills
from acrf_engine.data.errors import printable
from acrf_engine.data.holdout import choose
from acrf_engine.data.mixture import batch_sizes, epoch_counts, placed
from acrf_engine.data.scan import Picture, scan
from acrf_engine.model.layout import Checkpoint, ModelError
from acrf_engine.run.devices import candidates, visible_gpus
from acrf_engine.run.folder import RunError
from acrf_engine.run.hardware import GpuReader
from acrf_engine.run.waiting import holders

LEFT_OUT_SHOWN = 100
ADAM_STATE_BYTES = {"AdamW8bit": 2, "AdamW": 8}


@dataclass
class Report:
    """The result of a check. Memory in bytes; `problems` stop a run, `notes` do not."""

    config: str
    model: str
    pictures: int = 0
    held_out: int = 0
    without_caption: int = 0
    left_out: list[dict[str, str]] = field(default_factory=list)
    sources: list[dict[str, Any]] = field(default_factory=list)
    buckets: dict[str, int] = field(default_factory=dict)
    resolution: int = 0
    micro_batches_per_epoch: int = 0
    steps: int = 0
    base_parameters: int = 0
    trainable_parameters: int = 0
    memory: dict[str, int] = field(default_factory=dict)
    memory_total: int = 0
    device: str = ""
    device_memory: int | None = None
    disk_needed: int = 0
    disk_free: int = 0
    notes: list[str] = field(default_factory=list)


def check(config: RunConfig, name: str, runs_dir: Path) -> Report:
    """Look at data, model, memory and disk. Raises DataError or ModelError for what would stop the run."""
    checkpoint = Checkpoint(config.model)
    report = Report(name, str(checkpoint.folder))
    report.resolution = checkpoint.native_resolution() if config.resolution == "auto" else config.resolution
    _look_at_data(config, report)
    micro_batches = config.epochs * report.micro_batches_per_epoch
    report.steps = config.steps or math.ceil(micro_batches / config.gradient_accumulation)
    _look_at_memory(config, checkpoint, report)
    _look_at_disk(config, report, runs_dir)
    return report


def _look_at_data(config: RunConfig, report: Report) -> None:
    sources = [source.model_copy(update={"path": str(dataset_folder(source))}) for source in config.sources()]
    regularisation = config.regularisation.source()
    found = scan(sources, config.trigger, regularisation=regularisation)
    report.pictures = len(found.pictures)
    report.without_caption = sum(not picture.has_caption_file for picture in found.pictures)
    report.left_out = [{"path": printable(item.path), "reason": item.reason} for item in found.rejected]
    report.notes += found.notices
    held_out = choose(found.pictures, config.validation.holdout, config.seed)
    report.held_out = len(held_out)
    examples = placed(found.pictures, report.resolution, config.data.upscale)
    trained = [(picture, size) for picture, size in examples if picture.sha256 not in held_out]
    for _, (width, height) in trained:
        name = f"{width}x{height}"
        report.buckets[name] = report.buckets.get(name, 0) + 1
    counts = epoch_counts(examples, config.regularisation.ratio, held_out)
    lengths = batch_sizes(counts, config.batch_size)
    report.micro_batches_per_epoch = len(lengths)
    every = [*sources, *([regularisation] if regularisation is not None else [])]
    report.sources = [
        _source(source, [picture for picture in found.pictures if picture.source == number])
        for number, source in enumerate(every)
    ]
    if regularisation is not None:
        report.sources[-1] |= {"regularisation": True, "ratio": config.regularisation.ratio}
    if silent := sum(not picture.caption for picture in found.pictures):
        report.notes.append(
            f"{silent} pictures have no caption: they train on the empty prompt "
            "(add .txt files, a trigger, or a default_caption)"
        )
    _note_sizes(config, report, found.pictures)
    if (short := sum(length < config.batch_size for length in lengths)) and config.batch_size > 1:
        report.notes.append(
            f"{short} of {len(lengths)} micro-batches an epoch are short, since pictures of one batch share a size; "
            "their loss counts by their number of pictures, so that every picture counts the same"
        )


def _source(source: DatasetSource, pictures: list[Picture]) -> dict[str, Any]:
    """What a source gives, for the JSON and for people."""
    captions = Counter(picture.caption_from for picture in pictures)
    found = {
        "path": printable(source.path),
        "pictures": len(pictures),
        "repeats": source.repeats,
        "weight": source.weight,
        "captions": dict(captions.most_common()),
    }
    if source.masks:
        found["masks"] = sum(picture.mask is not None for picture in pictures)
    if source.resolutions():
        found["resolutions"] = list(source.resolutions())
    return found


def _note_sizes(config: RunConfig, report: Report, pictures: Sequence[Picture]) -> None:
    for side in sorted(
        {side for picture in pictures for side in picture.resolutions if side > min(picture.resolutions)}
    ):
        of_side = [picture for picture in pictures if side in picture.resolutions]
        if lacking := [p for p in of_side if not config.data.upscale and not fills(p.width, p.height, side)]:
            report.notes.append(
                f"{len(lacking)} of {len(of_side)} pictures do not fill {side} and are not seen at it "
                "(data.upscale: true enlarges)"
            )
    small = [
        picture.path
        for picture in pictures
        if not fills(picture.width, picture.height, min(picture.resolutions or (report.resolution,)))
    ]
    if not small:
        return
    names = ", ".join(printable(path.name) for path in small[:5]) + (" ..." if len(small) > 5 else "")
    they = f"{len(small)} picture{'s do' if len(small) > 1 else ' does'} not fill the training size"
    if config.data.upscale:
        report.notes.append(f"{they} and will be enlarged: {names}")
    else:
        report.notes.append(f"{they} and will train in smaller buckets (data.upscale: true enlarges): {names}")


def _look_at_memory(config: RunConfig, checkpoint: Checkpoint, report: Report) -> None:
    shapes = checkpoint.transformer_shapes()
    report.base_parameters = sum(math.prod(shape) for shape in shapes.values())
    blocks = "layers|noise_refiner|context_refiner" if config.lora.refiners else "layers"
    kinds = r"attention\.(to_q|to_k|to_v|to_out\.0)" + (
        r"|feed_forward\.w[123]" if config.lora.targets == "ext" else ""
    )
    pattern = re.compile(rf"({blocks})\.\d+\.({kinds})\.weight")
    trained = [shape for name, shape in shapes.items() if pattern.fullmatch(name)]
    report.trainable_parameters = sum(config.network_dim * sum(shape) for shape in trained)

    on_gpu = _look_at_device(config.memory.device, report)
    half = config.memory.dtype == "bf16" or (config.memory.dtype == "auto" and on_gpu)
    width = 2 if half else 4
    shape = checkpoint.part_config("transformer")
    dim, layers = int(shape.get("dim", 3840)), int(shape.get("n_layers", 30))
    side = max([report.resolution, *(side for source in report.sources for side in source.get("resolutions", []))])
    tokens = config.batch_size * (side // 16) ** 2
    wanted = config.memory.gradient_checkpointing
    checkpointing = wanted == "on" or (wanted == "auto" and report.base_parameters > 1e9)
    # Per token and layer roughly 34 values are kept for backward; with checkpointing one, and one layer in full.
    kept = tokens * dim * (layers + 34 if checkpointing else 34 * layers)
    report.memory = {
        "base weights": report.base_parameters * width,
        "LoRA and gradients": report.trainable_parameters * 8,
        "optimizer": report.trainable_parameters * ADAM_STATE_BYTES[config.optimizer],
        "activations (rough)": kept * width,
    }
    if config.optimization.ema_decay:
        report.memory["moving average"] = report.trainable_parameters * 4
    report.memory_total = sum(report.memory.values())
    if report.device_memory is not None and report.memory_total > report.device_memory:
        report.notes.append("the estimate is above the card's memory: lower resolution or batch_size")


def _look_at_device(wanted: str, report: Report) -> bool:
    """The device that the run would get, and who is on it. Returns whether it is a GPU."""
    gpus = visible_gpus(GpuReader())
    if wanted == "cuda" and not gpus:
        raise ModelError("memory.device: cuda is asked for, but there is no GPU here (use auto or cpu)")
    try:
        allowed = candidates(wanted, gpus)
    except RunError as error:
        raise ModelError(str(error)) from None
    if not allowed:
        report.device = "CPU"
        return False
    gpu = next((gpu for gpu in allowed if not holders(gpu.uuid)), allowed[0])
    report.device, report.device_memory = gpu.title, gpu.memory_total
    if busy := holders(gpu.uuid):
        report.notes.append(f"{gpu.title} is used by run {busy[0]}: a run started now waits for it")
    elif gpu.others:
        report.notes.append(gpu.others)
    return True


def _look_at_disk(config: RunConfig, report: Report, runs_dir: Path) -> None:
    per_file = report.trainable_parameters * 4
    per_checkpoint = per_file + report.trainable_parameters * ADAM_STATE_BYTES[config.optimizer]
    if config.optimization.ema_decay:
        per_checkpoint += per_file
    saves = report.steps // config.checkpoint.every if config.checkpoint.every else 0
    report.disk_needed = per_checkpoint * (config.checkpoint.keep + 1) + per_file * (saves + 2)
    place = next((parent for parent in [runs_dir, *runs_dir.parents] if parent.exists()), Path())
    report.disk_free = shutil.disk_usage(place).free
    if report.disk_needed > report.disk_free:
        report.notes.append(f"the disk of {place} has too little room")
    cache = platformdirs.user_cache_path("acrf-tui")
    report.notes.append(f"latents and captions are cached in {cache}")


def _pictures(report: Report) -> str:
    held_out = f", {report.held_out} of them held out for validation" if report.held_out else ""
    return f"{report.pictures}{held_out}, {report.without_caption} without caption, {len(report.left_out)} left out"


def _source_line(source: dict[str, Any]) -> str:
    """One source for people: where it is, what it gives, and how it counts."""
    captions = ", ".join(f"{number} from {origin}" for origin, number in source["captions"].items())
    count = source["pictures"]
    parts = [f"{count} picture{'' if count == 1 else 's'}", f"captions: {captions or 'none'}"]
    if source.get("regularisation"):
        parts.insert(1, f"regularisation, {source['ratio']:g} for each training picture")
    elif source["repeats"] > 1:
        parts.append(f"{source['repeats']} times an epoch")
    if source["weight"] != 1:
        parts.append(f"weight {source['weight']:g}")
    if "masks" in source:
        parts.append(f"{source['masks']} mask{'' if source['masks'] == 1 else 's'}")
    if "resolutions" in source:
        parts.append("at " + ", ".join(map(str, source["resolutions"])))
    return f"{source['path']}: " + "; ".join(parts)


def lines(report: Report) -> list[str]:
    """The report for people."""

    def gib(value: int) -> str:
        return f"{value / 2**30:.1f} GiB" if value >= 2**28 else f"{value / 2**20:.1f} MiB"

    rows: list[tuple[str, Any]] = [
        ("model", f"{report.model}  ({report.base_parameters / 1e6:,.1f} M parameters)"),
        ("pictures", _pictures(report)),
        *(("source", _source_line(source)) for source in report.sources),
        ("buckets", ", ".join(f"{name}: {count}" for name, count in report.buckets.items())),
        ("steps", f"{report.steps:,}  ({report.micro_batches_per_epoch} micro-batches an epoch)"),
        ("LoRA", f"{report.trainable_parameters:,} trainable parameters"),
        ("device", report.device + (f", {gib(report.device_memory)}" if report.device_memory else "")),
        (
            "memory",
            f"about {gib(report.memory_total)}: " + ", ".join(f"{k} {gib(v)}" for k, v in report.memory.items()),
        ),
        ("disk", f"about {gib(report.disk_needed)} of {gib(report.disk_free)} free"),
    ]
    text = [f"{name:>9}  {value}" for name, value in rows]
    text += [f"{'left out':>9}  {item['path']}: {item['reason']}" for item in report.left_out[:LEFT_OUT_SHOWN]]
    if more := len(report.left_out[LEFT_OUT_SHOWN:]):
        text.append(f"{'left out':>9}  {more:,} more (--json names all)")
    return text + [f"{'note':>9}  {note}" for note in report.notes]

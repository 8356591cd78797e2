"""Preflight: what a config will do, and whether it can; trains nothing and loads no torch."""

from __future__ import annotations

import math
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import platformdirs

from acrf_engine.check_data import look_at_data, source_line
from acrf_engine.check_optimizer import look_at_optimizer
from acrf_engine.config import RunConfig
from acrf_engine.model.adapter_fit import require_file_fits
from acrf_engine.model.attention import require_backend
from acrf_engine.model.layout import Checkpoint, ModelError
from acrf_engine.model.memory_estimate import estimate
from acrf_engine.model.targets import choose, require_rank
from acrf_engine.run.devices import candidates, visible_gpus
from acrf_engine.run.folder import RunError, list_runs
from acrf_engine.run.hardware import GpuReader
from acrf_engine.run.lora_files import header_of
from acrf_engine.run.lora_keys import parse
from acrf_engine.run.speed import measured_step
from acrf_engine.run.waiting import holders
from acrf_engine.yaml_source import ConfigError

LEFT_OUT_SHOWN = 100
ABOVE = {
    "caching": "caching is above the card's memory: set memory.text_encoder, or lower resolution",
    "training": "training is above the card's memory: set memory.quantization, or lower resolution or batch_size",
    "preview": "a preview is above the card's memory and would fail, with training going on: lower resolution",
}


@dataclass
class Report:
    """The result of a check. Memory in bytes; `problems` stop a run, `notes` do not."""

    config: str
    model: str
    pictures: int = 0
    held_out: int = 0
    without_caption: int = 0
    uncaptioned: list[str] = field(default_factory=list)
    """Names of the first of them."""
    left_out: list[dict[str, str]] = field(default_factory=list)
    sources: list[dict[str, Any]] = field(default_factory=list)
    """What every source gives, the regularisation set last."""
    buckets: dict[str, int] = field(default_factory=dict)
    resolution: int = 0
    micro_batches_per_epoch: int = 0
    steps: int = 0
    base_parameters: int = 0
    trainable_parameters: int = 0
    memory: dict[str, int] = field(default_factory=dict)
    """Parts of what training takes."""
    memory_phases: dict[str, int] = field(default_factory=dict)
    """Caching, training and preview: sums of what is on the device together."""
    memory_total: int = 0
    """The largest phase that the config asks for."""
    memory_ram: int = 0
    """Weights that wait in RAM, where they are offloaded."""
    caption_tokens: int = 0
    """Of the longest caption, from its letters."""
    device: str = ""
    device_memory: int | None = None
    optimizer: str = ""
    optimizer_state: int = 0
    rate: str = ""
    disk_needed: int = 0
    disk_free: int = 0
    step_time_s: float | None = None
    """Seconds a step, measured by the earlier run `step_time_run` over `step_time_steps` steps; None: not known."""
    step_time_run: str = ""
    step_time_steps: int = 0
    trackers: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def check(config: RunConfig, name: str, runs_dir: Path) -> Report:
    """Look at data, model, memory and disk. Raises ConfigError, DataError or ModelError for what would stop it."""
    checkpoint = Checkpoint.of(config)
    report = Report(name, str(checkpoint.folder))
    report.resolution = checkpoint.native_resolution() if config.resolution == "auto" else config.resolution
    look_at_data(config, report)
    micro_batches = config.epochs * report.micro_batches_per_epoch
    report.steps = config.steps or math.ceil(micro_batches / config.gradient_accumulation)
    _look_at_memory(config, checkpoint, report)
    _look_at_disk(config, report, runs_dir)
    _look_at_time(config, checkpoint, report, runs_dir)
    if missing := config.logging.missing():
        raise ConfigError(f"logging.trackers: {missing}")
    report.trackers = list(config.logging.trackers)
    return report


def _look_at_memory(config: RunConfig, checkpoint: Checkpoint, report: Report) -> None:
    shapes = checkpoint.transformer_shapes()
    report.base_parameters = sum(math.prod(shape) for shape in shapes.values())
    linears = {name.removesuffix(".weight"): shape for name, shape in shapes.items() if _is_linear(name, shape)}
    trained = choose(list(linears), config.lora)
    if path := config.lora.init_from:
        tensors = header_of(Path(path)).tensors.items()
        ranks = {entry.shape[0] for name, entry in tensors if (key := parse(name)) is not None and key.part == "down"}
        require_rank(path, ranks, config.network_dim)
    report.trainable_parameters = sum(config.network_dim * sum(linears[name]) for name in trained)
    if config.lora.use_dora:
        report.trainable_parameters += sum(linears[name][0] for name in trained)

    on_gpu = _look_at_device(config, report)
    require_backend(config.memory.attention, on_gpu=on_gpu, batch_size=config.batch_size)
    if path := config.base.training_adapter:
        require_file_fits(Path(path), linears)
    rank = config.network_dim
    factors: list[tuple[int, ...]] = []
    for out, into in (linears[name] for name in trained):
        factors += [(rank, into), (out, rank), *([(out,)] if config.lora.use_dora else [])]
    found = look_at_optimizer(config, on_gpu, factors, report.steps)
    report.optimizer, report.rate, report.optimizer_state = found.name, found.rate, found.state_bytes
    report.notes += found.notes
    memory = estimate(
        config,
        checkpoint,
        trained,
        on_gpu=on_gpu,
        optimizer_state=report.optimizer_state,
        picture=_largest(report),
        caption_tokens=report.caption_tokens,
    )
    report.memory, report.memory_phases, report.memory_ram = memory.parts, memory.phases, memory.ram
    needed = {name: size for name, size in memory.phases.items() if name != "preview" or config.preview.every}
    report.memory_total = max(needed.values())
    card = report.device_memory
    for name, size in memory.phases.items():
        if card is not None and size > card:
            report.notes.append(f"{ABOVE[name]} ({size / 2**30:.1f} of {card / 2**30:.1f} GiB)")


def _largest(report: Report) -> tuple[int, int]:
    """Sides of the largest bucket, in pixels."""
    sizes = [tuple(map(int, name.split("x"))) for name in report.buckets] or [(report.resolution, report.resolution)]
    width, height = max(sizes, key=math.prod)
    return width, height


def _is_linear(name: str, shape: tuple[int, ...]) -> bool:
    return name.endswith(".weight") and len(shape) == 2


def _look_at_device(config: RunConfig, report: Report) -> bool:
    """The device that the run would get, and who is on it. Returns whether it is a GPU.

    With `memory.vram` a card of that size is looked at, be it here or not.
    """
    wanted, vram = config.memory.device, config.memory.vram
    gpus = visible_gpus(GpuReader())
    if wanted == "cuda" and not gpus:
        raise ModelError("memory.device: cuda is asked for, but there is no GPU here (use auto or cpu)")
    try:
        allowed = candidates(wanted, gpus)
    except RunError as error:
        raise ModelError(str(error)) from None
    if wanted == "mps" and sys.platform != "darwin":
        raise ModelError("memory.device: mps is asked for, which is Apple's Metal (use auto or cpu)")
    if not allowed and vram is None:
        report.device = "MPS" if wanted == "mps" else "CPU"
        return wanted == "mps"
    if not allowed and vram is not None:
        report.device, report.device_memory = f"a card of {vram:g} GiB (there is none here)", int(vram * 2**30)
        return True
    gpu = next((gpu for gpu in allowed if not holders(gpu.uuid)), allowed[0])
    report.device, report.device_memory = gpu.title, gpu.memory_total
    if vram is not None:
        report.device_memory = min(int(vram * 2**30), gpu.memory_total or sys.maxsize)
    if busy := holders(gpu.uuid):
        report.notes.append(f"{gpu.title} is used by run {busy[0]}: a run started now waits for it")
    elif gpu.others:
        report.notes.append(gpu.others)
    return True


def _look_at_disk(config: RunConfig, report: Report, runs_dir: Path) -> None:
    per_file = report.trainable_parameters * 4
    per_checkpoint = per_file + report.optimizer_state
    if config.optimization.ema_decay:
        per_checkpoint += per_file
    saves = report.steps // config.checkpoint.every if config.checkpoint.every else 0
    report.disk_needed = per_checkpoint * (config.checkpoint.keep + 1) + per_file * (saves + 2)
    place = next((parent for parent in [runs_dir, *runs_dir.parents] if parent.exists()), Path())
    report.disk_free = shutil.disk_usage(place).free
    if report.disk_needed > report.disk_free:
        report.notes.append(f"the disk of {place} has too little room")
    cache = platformdirs.user_cache_path("acrf-tui")
    home = Path.home()
    shown = f"~/{cache.relative_to(home)}" if cache.is_relative_to(home) else str(cache)
    report.notes.append(f"latents and captions are cached in {shown}")


def _pictures(report: Report) -> str:
    held_out = f", {report.held_out} of them held out for validation" if report.held_out else ""
    return f"{report.pictures}{held_out}, {report.without_caption} without caption, {len(report.left_out)} left out"


def _look_at_time(config: RunConfig, checkpoint: Checkpoint, report: Report, runs_dir: Path) -> None:
    """Only what was measured: on another device, or with another batch, a step takes another time."""
    native = checkpoint.native_resolution()
    found = measured_step(config.model_dump(mode="json"), native, report.device, list_runs(runs_dir))
    if found is not None:
        report.step_time_s, report.step_time_run, report.step_time_steps = found.seconds, found.run, found.steps


def duration(seconds: float) -> str:
    """Hours, minutes and seconds."""
    minutes, left = divmod(math.ceil(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{left:02d}"


def lines(report: Report) -> list[str]:
    """The report for people."""

    def gib(value: int) -> str:
        return f"{value / 2**30:.1f} GiB" if value >= 2**28 else f"{value / 2**20:.1f} MiB"

    rows: list[tuple[str, Any]] = [
        ("model", f"{report.model}  ({report.base_parameters / 1e6:,.1f} M parameters)"),
        ("pictures", _pictures(report)),
        *(("source", source_line(source)) for source in report.sources),
        ("buckets", ", ".join(f"{name}: {count}" for name, count in report.buckets.items())),
        ("steps", f"{report.steps:,}  ({report.micro_batches_per_epoch} micro-batches an epoch)"),
        ("LoRA", f"{report.trainable_parameters:,} trainable parameters"),
        ("optimizer", report.optimizer),
        ("rate", report.rate),
        ("device", report.device + (f", {gib(report.device_memory)}" if report.device_memory else "")),
        (
            "memory",
            f"about {gib(report.memory_total)}: {', '.join(f'{k} {gib(v)}' for k, v in report.memory_phases.items())}",
        ),
        ("training", ", ".join(f"{k} {gib(v)}" for k, v in report.memory.items())),
        *([("RAM", f"{gib(report.memory_ram)} of offloaded weights")] if report.memory_ram else []),
        ("disk", f"about {gib(report.disk_needed)} of {gib(report.disk_free)} free"),
        ("time", _time(report)),
        *([("trackers", ", ".join(report.trackers))] if report.trackers else []),
    ]
    text = [f"{name:>9}  {value}" for name, value in rows]
    if report.uncaptioned:
        more = report.without_caption - len(report.uncaptioned)
        names = ", ".join(report.uncaptioned) + (f" and {more} more" if more else "")
        text.append(f"{'captions':>9}  missing for {names}")
    text += [f"{'left out':>9}  {item['path']}: {item['reason']}" for item in report.left_out[:LEFT_OUT_SHOWN]]
    if more := len(report.left_out[LEFT_OUT_SHOWN:]):
        text.append(f"{'left out':>9}  {more:,} more (--json names all)")
    return text + [f"{'note':>9}  {note}" for note in report.notes]


def _time(report: Report) -> str:
    if report.step_time_s is None:
        return "not known before the first steps: no earlier run of this kind on this device"
    total = duration(report.steps * report.step_time_s)
    return f"about {total} of training: {report.step_time_s:.3g} s a step, measured in run {report.step_time_run}"

"""Everything before the first step: cache the data, load the transformer, add the LoRA."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs
import torch
from torch import nn

from acrf_engine.config import RunConfig, dataset_folder
from acrf_engine.data.batches import BatchPlan
from acrf_engine.data.cache import Cache, CachedDataset, fill
from acrf_engine.data.errors import printable
from acrf_engine.data.holdout import choose, split
from acrf_engine.data.scan import scan
from acrf_engine.method.anchors import pipeline_anchors, scheduler_anchors
from acrf_engine.method.losses import Lambdas
from acrf_engine.method.sampling import Deck
from acrf_engine.method.step import Method
from acrf_engine.model.attention import try_backend
from acrf_engine.model.compiling import compile_blocks
from acrf_engine.model.device import choose_device, choose_dtype, free_memory, hold_to, slow_dtype
from acrf_engine.model.layout import Checkpoint, hash_file
from acrf_engine.model.lora import inject, target_modules
from acrf_engine.model.offload import bring
from acrf_engine.model.recompute import recompute_blocks
from acrf_engine.model.start import start_from
from acrf_engine.model.training_adapter import attach
from acrf_engine.model.zimage import LATENT_FACTOR, Encoders, load_scheduler, load_transformer
from acrf_engine.protocol import Event, Progress, WarningEvent
from acrf_engine.randomness import seed_for
from acrf_engine.run.wire import clip_text
from acrf_engine.training.optim import require_usable

LEFT_OUT_SHOWN = 100
Report = Callable[[Event], None]
Pulse = Callable[[], None]
"""Called often during long phases; may raise to leave them."""


@dataclass
class Prepared:
    """A run, ready to take its first step."""

    checkpoint: Checkpoint
    transformer: nn.Module
    trainable: list[nn.Parameter]
    modules: list[str]
    dataset: CachedDataset
    held_out: CachedDataset
    """What is validated on, and never trained on; often empty."""
    plan: BatchPlan
    method: Method
    device: torch.device
    dtype: torch.dtype
    resolution: int
    prompts: list[str]
    base: str
    """Fingerprint of the frozen weights, training adapter included."""


def prepare(
    config: RunConfig, report: Report, pulse: Pulse, *, fresh: bool = True, cached: Callable[[], None] = lambda: None
) -> Prepared:
    """Cache latents and captions, then load the transformer and add the LoRA.

    `fresh` is false where a checkpoint will give the weights: then `lora.init_from` is not read any more. `cached` is
    called when latents and captions are all there.
    VAE and text encoder leave memory before the transformer comes, so the card never holds all three.
    Raises ConfigError, DataError, ModelError or LoraError, each with a message for the user.
    """
    report(Progress("loading", 0, 0, f"opening {config.model}"))
    device = choose_device(config.memory.device)
    dtype = choose_dtype(config.memory.dtype, device)
    require_usable(config, device)
    try_backend(config.memory.attention, device, dtype, config.batch_size)
    hold_to(config.memory.vram, device)
    if slow := slow_dtype(dtype, device):
        report(WarningEvent(slow))
    checkpoint = Checkpoint.of(config)
    resolution = checkpoint.native_resolution() if config.resolution == "auto" else config.resolution
    dataset, held_out, prompts = cache_data(config, checkpoint, resolution, device, dtype, report, pulse)
    free_memory()
    cached()

    report(Progress("loading", 0, 0, "loading the transformer"))
    pulse()
    transformer, modules, trainable = load_for_training(config, checkpoint, device, dtype, report, fresh=fresh)
    plan = BatchPlan(
        [example.bucket for example in dataset.examples],
        [example.picture.repeats for example in dataset.examples],
        config.global_batch,
        config.seed,
        [example.index for example in dataset.examples if example.picture.regularisation],
        config.regularisation.ratio,
    )
    return Prepared(
        checkpoint,
        transformer,
        trainable,
        modules,
        dataset,
        held_out,
        plan,
        make_method(config, checkpoint, plan, resolution),
        device,
        dtype,
        resolution,
        prompts,
        base_fingerprint(config, checkpoint),
    )


def cache_data(
    config: RunConfig,
    checkpoint: Checkpoint,
    resolution: int,
    device: torch.device,
    dtype: torch.dtype,
    report: Report,
    pulse: Pulse,
) -> tuple[CachedDataset, CachedDataset, list[str]]:
    """What to train on and what to validate on, with latents and embeddings, and the prompts that previews will draw.

    Raises DataError, before anything is encoded, where nothing would be left to train on.
    """

    def progress(phase: str) -> Callable[[int, int, str], None]:
        def say(done: int, total: int, what: str) -> None:
            pulse()
            report(Progress(phase, done, total, what))

        return say

    sources = [source.model_copy(update={"path": str(dataset_folder(source))}) for source in config.sources()]
    found = scan(sources, config.trigger, progress("caching"), config.regularisation.source())
    for rejected in found.rejected[:LEFT_OUT_SHOWN]:
        report(WarningEvent(clip_text(f"left out: {printable(rejected.path)}: {rejected.reason}")))
    if more := len(found.rejected[LEFT_OUT_SHOWN:]):
        report(WarningEvent(f"left out: {more:,} more (`acrf-tui check --json` names all)"))
    for notice in found.notices:
        report(WarningEvent(clip_text(notice)))
    held_out = choose(found.pictures, config.validation.holdout, config.seed)
    prompts = config.preview.prompts or [found.pictures[0].caption]
    dataset = fill(
        found,
        resolution,
        lambda: Encoders(checkpoint, device, dtype, config.memory.text_encoder),
        checkpoint.encoders_fingerprint(config.memory.text_encoder),
        Cache(platformdirs.user_cache_path("acrf-tui") / "data"),
        progress("caching"),
        prompts,
        config.data.flip,
        config.data.upscale,
    )
    return *split(dataset, held_out), prompts


def load_for_training(
    config: RunConfig,
    checkpoint: Checkpoint,
    device: torch.device,
    dtype: torch.dtype,
    report: Report,
    *,
    fresh: bool = True,
) -> tuple[nn.Module, list[str], list[nn.Parameter]]:
    """The transformer with the LoRA in it, stored, offloaded, recomputed and compiled as `config.memory` says.

    Returns it, the names of the modules that have the LoRA, and the LoRA's parameters. Raises ModelError or LoraError.
    """
    transformer = load_transformer(checkpoint, dtype, device, config.memory)
    modules, trainable = _add_lora(config, transformer, fresh)
    if config.base.training_adapter:
        attach(transformer, Path(config.base.training_adapter), dtype)
    if config.memory.offload:
        bring([value for name, value in transformer.named_parameters() if ".lora_" in name], device)
    recompute_blocks(transformer, config.memory, base_parameters(checkpoint))
    if config.memory.compile:
        report(Progress("loading", 0, 0, "the blocks are compiled at the first step"))
        compile_blocks(transformer)
    return transformer, modules, trainable


def make_method(config: RunConfig, checkpoint: Checkpoint, plan: BatchPlan, resolution: int) -> Method:
    """The method's settings, with the anchors of the checkpoint's own scheduler."""
    scheduler = load_scheduler(checkpoint)
    if config.anchors.source == "scheduler":
        anchors_K = scheduler_anchors(config.turbo_steps, scheduler)
    else:
        anchors_K = pipeline_anchors(config.turbo_steps, scheduler, resolution // LATENT_FACTOR)

    def sizes(epoch: int) -> list[int]:
        count = plan.batches_per_epoch
        return [len(plan.at(epoch * count + index)) for index in range(count)]

    return Method(
        anchors_K,
        seed=config.seed,
        snr_gamma=config.snr_gamma,
        jitter_scale=config.jitter_scale,
        lambdas=Lambdas(config.loss.lambda_char, config.loss.lambda_cos, config.loss.lambda_fft),
        jitter=config.anchors.jitter,
        deck=Deck(len(anchors_K), config.seed, sizes) if config.anchors.order == "deck" else None,
        weighting=config.loss.weighting,
        charbonnier=config.loss.charbonnier,
    )


def _add_lora(config: RunConfig, transformer: nn.Module, fresh: bool) -> tuple[list[str], list[nn.Parameter]]:
    wanted = config.lora
    modules = target_modules(transformer, wanted.targets, wanted.refiners, wanted.blocks)
    rank, alpha = config.network_dim, config.network_alpha
    trainable = inject(
        transformer,
        modules,
        rank,
        alpha,
        seed_for(config.seed, "lora-init"),
        use_rslora=wanted.use_rslora,
        use_dora=wanted.use_dora,
        dropout=wanted.dropout,
    )
    if wanted.init_from and fresh:
        start_from(transformer, modules, Path(wanted.init_from), rank, alpha, wanted.use_rslora, wanted.use_dora)
    return modules, trainable


def base_parameters(checkpoint: Checkpoint) -> int:
    """How many weights the frozen transformer has, in however many bits each is stored."""
    return sum(math.prod(shape) for shape in checkpoint.transformer_shapes().values())


def base_fingerprint(config: RunConfig, checkpoint: Checkpoint) -> str:
    """A hash of everything frozen that a step computes with: the transformer, and the training adapter."""
    adapter = config.base.training_adapter
    digest = hashlib.sha256(checkpoint.transformer_fingerprint().encode())
    digest.update(hash_file(Path(adapter)) if adapter else b"")
    return digest.hexdigest()


def count_parameters(parameters: list[nn.Parameter] | Any) -> int:
    return sum(parameter.numel() for parameter in parameters)

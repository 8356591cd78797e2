"""The engine's own cost: its step beside a bare loop, AC-RF beside plain flow matching, and what it waits for."""

from __future__ import annotations

import dataclasses
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.live import median_with_interval
from benchmarks.table import row

BLOCKS, STEPS_PER_BLOCK = 15, 6
QUICK_BLOCKS = 3
ACCUMULATION = 4
"""Micro-batches of the steps whose waits are counted."""
HOW_WAITS = (
    f"Waits are calls that need a value which is on the device, in a step of {ACCUMULATION} micro-batches: tensors are "
    "followed through every call (benchmarks/waits.py), so this needs no GPU. The one is the read of the step's "
    "numbers, before the update, so that a NaN makes none."
)


def measure(quick: bool = False) -> Iterator[dict[str, Any]]:
    """Rows of the table."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch

    from acrf_engine.config import RunConfig
    from acrf_engine.method.sampling import Deck, jittered
    from acrf_engine.method.weighting import min_snr_weight
    from acrf_engine.run.folder import RunFolder
    from acrf_engine.training.preparation import prepare
    from acrf_engine.training.threads import training_threads
    from acrf_engine.training.trainer import Trainer
    from benchmarks.waits import Waits

    torch.set_num_threads(training_threads())
    config = RunConfig(epochs=100_000, batch_size=4, gradient_accumulation=1)

    def nothing(*_: Any) -> None:
        return None

    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(config, RunFolder(Path(folder)), _full_batches(prepare(config, nothing, nothing)), nothing)
        bare, flow_matching = _bare_step(trainer), _bare_step(trainer, acrf=False)
        blocks = QUICK_BLOCKS if quick else BLOCKS
        pairs = _alternate(trainer.train_step, bare, blocks)
        ratios = [ours / theirs for ours, theirs in pairs]
        step_s = statistics.median(ours for ours, _ in pairs)
        ratio, text = median_with_interval(ratios)
        yield row(
            "engine: step / bare loop of the same step, batch 4",
            text,
            ratio,
            "1.03",
            ratio <= 1.03,
        )

        anchors = trainer.method.anchors_K
        deck = Deck.of_batch(4, len(anchors), 0)

        def sampling(draw: int) -> None:
            sigma = jittered(anchors, deck.at(draw), 0.02, "uniform", 0, draw)
            min_snr_weight(sigma, 5.0)

        cost_s = _median_time(sampling, 3000)
        share = cost_s / step_s
        yield row(
            "engine: AC-RF sampling and weighting / step, tiny model",
            f"{share:.2%} ({cost_s * 1e6:.0f} us)",
            share,
            "0.40%",
            share <= 0.004,
        )
        ratio, text = median_with_interval([ours / theirs for ours, theirs in _alternate(bare, flow_matching, blocks)])
        yield row("engine: bare loop with AC-RF / with uniform sigma and MSE", text, ratio)

        waited_s = _data_wait(trainer, blocks * STEPS_PER_BLOCK)
        yield row(
            "engine: wait for data / step", f"{waited_s / step_s:.2%} ({waited_s * 1e6:.0f} us)", waited_s / step_s
        )

        trainer.config = config.model_copy(update={"gradient_accumulation": ACCUMULATION})
        with Waits(trainer.prepared.transformer.parameters()) as waits:
            trainer.train_step()
        ours, others = waits.ours.total(), (waits.found - waits.ours).total()
        yield row("engine: waits for the device, engine, a step", f"{ours}", ours, "1", ours <= 1, HOW_WAITS)
        yield row("engine: waits for the device, model and optimizer, a step", f"{others}", others)


def _full_batches(prepared: Any) -> Any:
    """Only full batches of square pictures, so that both loops do the same work."""
    from acrf_engine.data.batches import BatchPlan
    from acrf_engine.method.sampling import Deck

    square = [example for example in prepared.dataset.examples if example.bucket[0] == example.bucket[1]][:12]
    prepared.dataset = dataclasses.replace(prepared.dataset, examples=tuple(square))
    prepared.plan = BatchPlan([example.bucket for example in square], [1] * len(square), 4, 0)
    prepared.method.deck = Deck.of_batch(4, len(prepared.method.anchors_K), 0)
    return prepared


def _data_wait(trainer: Any, steps: int) -> float:
    """Seconds of a step in which the trainer waits for its micro-batch: the median of so many steps."""
    times: list[float] = []
    loader, at = trainer.loader, trainer.loader.at

    def timed(micro_step: int) -> Any:
        begin = time.perf_counter()
        batch = at(micro_step)
        times.append(time.perf_counter() - begin)
        return batch

    loader.at = timed
    for _ in range(steps):
        trainer.train_step()
    loader.at = at
    return statistics.median(times)


def _bare_step(trainer: Any, acrf: bool = True) -> Callable[[], Any]:
    """The same update written plainly: no events, no checks, no commands, its own random draws.

    Without `acrf` it is plain flow matching: sigma uniform in [0, 1], mean squared error, no weights.
    """
    import torch

    from acrf_engine.method.losses import composite
    from acrf_engine.method.weighting import min_snr_weight

    transformer, square = trainer.prepared.transformer, trainer.prepared.dataset.examples[:4]
    latents = torch.stack([example.latent_CHW for example in square])
    captions = [example.caption_LD for example in square]
    parameters = trainer.prepared.trainable
    optimizer = type(trainer.optimizer.optimizer)(parameters, lr=1e-6)

    def step() -> None:
        sigma = trainer.method.anchors_K[torch.randperm(10)[:4]].clamp(0.001, 0.999) if acrf else torch.rand(4)
        noise = torch.randn_like(latents)
        mix = sigma.view(-1, 1, 1, 1)
        x = mix * noise + (1 - mix) * latents
        output = transformer(list(x.unsqueeze(2).unbind(0)), 1 - sigma, captions, return_dict=False)[0]
        prediction = -torch.stack(output).squeeze(2)
        if acrf:
            loss = (min_snr_weight(sigma, 5.0) * composite(prediction, noise - latents).composite_B).mean()
        else:
            loss = torch.nn.functional.mse_loss(prediction, noise - latents)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()

    return step


def _alternate(first: Callable[[], Any], second: Callable[[], Any], blocks: int) -> list[tuple[float, float]]:
    """Seconds a step of both, in alternating short blocks, so that the machine's moods hit both."""
    for _ in range(4):
        first()
        second()
    return [(_block(first), _block(second)) for _ in range(blocks)]


def _block(step: Callable[[], Any]) -> float:
    times = []
    for _ in range(STEPS_PER_BLOCK):
        begin = time.perf_counter()
        step()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def _median_time(call: Callable[[int], None], count: int) -> float:
    times = []
    for index in range(count):
        begin = time.perf_counter()
        call(index)
        times.append(time.perf_counter() - begin)
    return statistics.median(times)

"""The engine's own cost: the trainer's step beside a bare loop, and AC-RF's sampling and weighting beside a step."""

from __future__ import annotations

import dataclasses
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.live import interval
from benchmarks.table import row

BLOCKS, STEPS_PER_BLOCK = 15, 6
QUICK_BLOCKS = 3


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

    torch.set_num_threads(training_threads())
    config = RunConfig(epochs=100_000, batch_size=4, gradient_accumulation=1)

    def nothing(*_: Any) -> None:
        return None

    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(config, RunFolder(Path(folder)), _full_batches(prepare(config, nothing, nothing)), nothing)
        bare = _bare_step(trainer)
        pairs = _alternate(trainer.train_step, bare, QUICK_BLOCKS if quick else BLOCKS)
        ratios = [ours / theirs for ours, theirs in pairs]
        step_s = statistics.median(ours for ours, _ in pairs)
        low, high = interval(ratios)
        ratio = statistics.median(ratios)
        yield row(
            "engine: step / bare loop of the same step, batch 4",
            f"{ratio:.3f} [{low:.3f}, {high:.3f}]",
            ratio,
            "1.03",
            ratio <= 1.03,
        )

        yield from _of_the_data(trainer, QUICK_BLOCKS if quick else BLOCKS)
        yield from _of_waits(trainer)

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


def _of_the_data(trainer: Any, steps: int) -> Iterator[dict[str, Any]]:
    """How much of a step goes by until its pictures and captions are on the device."""
    load, waited = trainer._load_batch, []

    def timed(micro_step: int) -> Any:
        begin = time.perf_counter()
        batch = load(micro_step)
        waited.append(time.perf_counter() - begin)
        return batch

    trainer._load_batch = timed
    shares = []
    for _ in range(steps):
        waited.clear()
        begin = time.perf_counter()
        trainer.train_step()
        shares.append(sum(waited) / (time.perf_counter() - begin))
    trainer._load_batch = load
    share = statistics.median(shares)
    yield row("engine: wait for data / step, no loader processes", f"{share:.2%}", share)


def _of_waits(trainer: Any) -> Iterator[dict[str, Any]]:
    """How often a step, and one more micro-batch in it, would wait for the GPU; see `benchmarks.waits`."""
    from benchmarks.waits import Waits

    counts, config = [], trainer.config
    for micro_batches in (1, 4):
        trainer.config = config.model_copy(update={"gradient_accumulation": micro_batches})
        with Waits(trainer.prepared.transformer.parameters()) as waits:
            trainer.train_step()
        counts.append((waits.ours.total(), waits.found.total()))
    trainer.config = config
    (once, all_once), (ours, everything) = counts
    more = (ours - once) / 3
    yield row("engine: waits for the device in a step", f"{once}", once, "1", once <= 1)
    yield row("engine: waits for the device in one more micro-batch", f"{more:.0f}", more, "0", more == 0)
    theirs = (everything - all_once) / 3 - more
    yield row("engine: the same in the code of model and libraries", f"{theirs:.0f}", theirs)


def _full_batches(prepared: Any) -> Any:
    """Only full batches of square pictures, so that both loops do the same work."""
    from acrf_engine.data.batches import BatchPlan
    from acrf_engine.method.sampling import Deck

    square = [example for example in prepared.dataset.examples if example.bucket[0] == example.bucket[1]][:12]
    prepared.dataset = dataclasses.replace(prepared.dataset, examples=tuple(square))
    prepared.plan = BatchPlan([example.bucket for example in square], [1] * len(square), 4, 0)
    prepared.method.deck = Deck.of_batch(4, len(prepared.method.anchors_K), 0)
    return prepared


def _bare_step(trainer: Any) -> Callable[[], Any]:
    """The same update written plainly: no events, no checks, no commands, its own random draws."""
    import torch

    from acrf_engine.method.losses import composite
    from acrf_engine.method.weighting import min_snr_weight

    transformer, square = trainer.prepared.transformer, trainer.prepared.dataset.examples[:4]
    latents = torch.stack([example.latent_CHW for example in square])
    captions = [example.caption_LD for example in square]
    parameters = trainer.prepared.trainable
    optimizer = type(trainer.optimizer.optimizer)(parameters, lr=1e-6)

    def step() -> None:
        sigma = trainer.method.anchors_K[torch.randperm(10)[:4]].clamp(0.001, 0.999)
        noise = torch.randn_like(latents)
        mix = sigma.view(-1, 1, 1, 1)
        x = mix * noise + (1 - mix) * latents
        output = transformer(list(x.unsqueeze(2).unbind(0)), 1 - sigma, captions, return_dict=False)[0]
        prediction = -torch.stack(output).squeeze(2)
        loss = (min_snr_weight(sigma, 5.0) * composite(prediction, noise - latents).composite_B).mean()
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

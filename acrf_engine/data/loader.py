"""Loading: micro-batches from any position on, put together by the training process or ahead of it by others.

A micro-batch is a function of (seed, number), mirroring and caption dropout included, so every number of loader
processes gives the same ones.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from acrf_engine.data.batches import Batch, BatchPlan, collate
from acrf_engine.data.cache import CachedDataset
from acrf_engine.method.part import Part
from acrf_engine.randomness import generator

FLIP_PROBABILITY = 0.5
_PR_SET_PDEATHSIG = 1


class LoaderDied(Exception):
    """A loader process ended on its own; the message says what to do."""


@dataclass(frozen=True, eq=False)
class _Packed:
    """A batch on its way between processes: few tensors, since each one takes a file descriptor."""

    latents_BCHW: Tensor
    captions_ND: Tensor
    lengths: list[int]
    indices: tuple[int, ...]
    weights: tuple[float, ...]
    masks_BHW: Tensor | None
    part: Part | None

    @classmethod
    def of(cls, batch: Batch) -> _Packed:
        lengths = [len(caption_LD) for caption_LD in batch.captions]
        return cls(
            batch.latents_BCHW,
            torch.cat(batch.captions),
            lengths,
            batch.indices,
            batch.weights,
            batch.masks_BHW,
            batch.part,
        )

    def unpacked(self) -> Batch:
        captions = list(torch.split(self.captions_ND, self.lengths))
        return Batch(self.latents_BCHW, captions, self.indices, self.weights, self.masks_BHW, self.part)


class MicroBatches(Dataset[_Packed]):
    """Every micro-batch of a run, by its number (from 0, counted over all epochs).

    The pictures of a short batch share its mean among fewer, so their weights are lowered by as much: over an epoch a
    picture counts the same whatever the bucket it is in. Of `processes` that train together each gets its part.
    """

    def __init__(
        self,
        dataset: CachedDataset,
        plan: BatchPlan,
        seed: int,
        flip: bool = False,
        caption_dropout: float = 0.0,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        self._dataset = dataset
        self._plan = plan
        self._seed = seed
        self._flip = FLIP_PROBABILITY if flip else 0.0
        self._caption_dropout = caption_dropout
        self._rank, self._processes = rank, processes

    def __getitem__(self, micro_step: int) -> _Packed:
        return _Packed.of(self.at(micro_step))

    def at(self, micro_step: int) -> Batch:
        """Return the micro-batch of that number."""
        examples = [self._dataset.examples[index] for index in self._plan.at(micro_step)]
        mirrored = self._drawn(self._flip, "flip", micro_step, len(examples))
        dropped = self._drawn(self._caption_dropout, "caption-dropout", micro_step, len(examples))
        examples = [example.mirrored() if yes else example for example, yes in zip(examples, mirrored, strict=True)]
        empty_LD = self._dataset.captions[""]
        examples = [
            replace(example, caption_LD=empty_LD) if yes else example
            for example, yes in zip(examples, dropped, strict=True)
        ]
        share = len(examples) / self._plan.mean_batch
        if self._processes == 1:
            batch = collate(examples)
            return replace(batch, weights=tuple(weight * share for weight in batch.weights))
        part = Part.of(len(examples), self._rank, self._processes)
        batch = collate(examples[part.start : part.stop])
        factor = 0.0 if part.idle else share
        return replace(batch, weights=tuple(weight * factor for weight in batch.weights), part=part)

    def _drawn(self, probability: float, purpose: str, micro_step: int, count: int) -> list[bool]:
        """For each picture of the micro-batch, whether it is drawn."""
        if not probability:
            return [False] * count
        draws_B = torch.rand(count, generator=generator(self._seed, purpose, micro_step))
        drawn: list[bool] = (draws_B < probability).tolist()
        return drawn


class Loader:
    """Serves micro-batches in any order; read one after the other they come from `num_workers` processes, if any.

    The processes are started by the first call and anew by a jump, and are ended by `close`.
    """

    def __init__(self, batches: MicroBatches, num_workers: int) -> None:
        self._batches = batches
        self._num_workers = num_workers
        self._ahead: Iterator[_Packed] | None = None
        self._next = 0

    def at(self, micro_step: int) -> Batch:
        """Return the micro-batch of that number. Raises LoaderDied where a loader process has ended."""
        if not self._num_workers:
            return self._batches.at(micro_step)
        if self._ahead is None or micro_step != self._next:
            self.close()
            self._ahead = self._start(micro_step)
        try:
            packed = next(self._ahead)
        except (RuntimeError, OSError, EOFError) as error:
            # A connection that breaks is a death too, noticed a moment earlier.
            if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
                raise
            raise LoaderDied(
                f"a loader process died at micro-batch {micro_step} ({error}); memory or /dev/shm may be short "
                f"(lower data.num_workers from {self._num_workers} or set it to 0, then resume)"
            ) from error
        self._next = micro_step + 1
        return packed.unpacked()

    def close(self) -> None:
        """End the loader processes, in order."""
        self._ahead = None

    def _start(self, micro_step: int) -> Iterator[_Packed]:
        loader = DataLoader(
            self._batches,
            batch_size=None,
            sampler=itertools.count(micro_step),
            num_workers=self._num_workers,
            multiprocessing_context="fork",  # the data set is shared as it stands, not copied
            worker_init_fn=functools.partial(_die_with, os.getpid()),
            generator=torch.Generator(),
        )
        # torch's handler would raise anywhere, in the middle of a save too; `next` notices a death by itself.
        handler = signal.getsignal(signal.SIGCHLD)
        ahead = iter(loader)
        signal.signal(signal.SIGCHLD, handler)
        return ahead


def _die_with(parent: int, _worker: int) -> None:
    """End this process at once when its parent ends, since it holds the GPU's memory.

    torch's own watch takes 5 s, and misses a parent that was gone before it began.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)

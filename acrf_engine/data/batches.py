"""Batches: which examples a micro-step trains on, computed from the seed and the step's number alone.

Nothing is carried from step to step, so a resumed run sees the same batches without any saved state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from acrf_engine.data.buckets import Size
from acrf_engine.data.cache import Example
from acrf_engine.randomness import generator


@dataclass(frozen=True, eq=False)
class Batch:
    """One micro-batch: latents [B, C, H, W]; one embedding [L, D] a caption, unpadded; indices of the examples."""

    latents_BCHW: Tensor
    captions: list[Tensor]
    indices: tuple[int, ...]


class BatchPlan:
    """The batches of every epoch. Each epoch holds each example exactly `repeats` times, in batches of one bucket.

    The last batch of a bucket may be short; nothing is dropped. Raises ValueError for empty or contradictory input.
    """

    def __init__(self, bucket_of_example: Sequence[Size], repeats: Sequence[int], batch_size: int, seed: int) -> None:
        if not bucket_of_example or len(bucket_of_example) != len(repeats):
            raise ValueError(f"{len(bucket_of_example)} buckets and {len(repeats)} repeats given")
        if batch_size < 1 or min(repeats) < 1:
            raise ValueError(f"batch size ({batch_size}) and repeats (least {min(repeats)}) must be at least 1")
        self._batch_size = batch_size
        self._seed = seed
        members: dict[Size, list[int]] = {}
        for index, (bucket, times) in enumerate(zip(bucket_of_example, repeats, strict=True)):
            members.setdefault(bucket, []).extend([index] * times)
        self._buckets = [members[bucket] for bucket in sorted(members)]
        self._epoch: tuple[int, list[tuple[int, ...]]] = (-1, [])

    @property
    def batches_per_epoch(self) -> int:
        """Number of micro-batches in an epoch, the same for all of them."""
        return sum(-(-len(members) // self._batch_size) for members in self._buckets)

    def at(self, micro_step: int) -> tuple[int, ...]:
        """Return the examples of a micro-step (from 0, counted over all epochs)."""
        if micro_step < 0:
            raise ValueError(f"micro_step must not be negative: {micro_step}")
        epoch, position = divmod(micro_step, self.batches_per_epoch)
        if self._epoch[0] != epoch:
            self._epoch = (epoch, self._shuffled(epoch))
        return self._epoch[1][position]

    def _shuffled(self, epoch: int) -> list[tuple[int, ...]]:
        source = generator(self._seed, "shuffle", epoch)
        batches: list[tuple[int, ...]] = []
        for members in self._buckets:
            order = [members[i] for i in torch.randperm(len(members), generator=source).tolist()]
            size = self._batch_size
            batches += [tuple(order[start : start + size]) for start in range(0, len(order), size)]
        return [batches[i] for i in torch.randperm(len(batches), generator=source).tolist()]


def collate(examples: Sequence[Example]) -> Batch:
    """Stack examples of one bucket. Raises ValueError when there is none, or when their latents differ in shape."""
    shapes = {tuple(example.latent_CHW.shape) for example in examples}
    if len(shapes) != 1:
        raise ValueError(f"a batch needs examples of one shape, got {sorted(shapes)}")
    return Batch(
        latents_BCHW=torch.stack([example.latent_CHW for example in examples]),
        captions=[example.caption_LD for example in examples],
        indices=tuple(example.index for example in examples),
    )

"""Batches: which examples a micro-step trains on, computed from the seed and the step's number alone.

Nothing is carried from step to step, so a resumed run sees the same batches without any saved state.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from acrf_engine.data.buckets import Size
from acrf_engine.data.cache import Example
from acrf_engine.data.mixture import batch_sizes, quotas
from acrf_engine.method.part import Part
from acrf_engine.randomness import generator


@dataclass(frozen=True, eq=False)
class Batch:
    """One micro-batch: latents [B, C, H, W]; one embedding [L, D] a caption, unpadded; indices of the examples.

    `weights` are the factors of the pictures' losses; `masks_BHW` that of each latent cell, None where no picture of
    the batch has a mask. Where several processes train, `part` says which pictures of the micro-batch these are.
    """

    latents_BCHW: Tensor
    captions: list[Tensor]
    indices: tuple[int, ...]
    weights: tuple[float, ...] = ()
    masks_BHW: Tensor | None = None
    part: Part | None = None


class BatchPlan:
    """The batches of every epoch. Each epoch holds each example exactly `repeats` times, in batches of one bucket.

    The last batch of a bucket may be short; nothing is dropped. Of the `regularisation` examples (by index; their
    repeats do not count) an epoch holds `ratio` for each training picture seen, going through all of them in turn, an
    equal number of every bucket in every epoch. Raises ValueError for empty or contradictory input.
    """

    def __init__(
        self,
        bucket_of_example: Sequence[Size],
        repeats: Sequence[int],
        batch_size: int,
        seed: int,
        regularisation: Collection[int] = (),
        ratio: float = 1.0,
    ) -> None:
        if not bucket_of_example or len(bucket_of_example) != len(repeats):
            raise ValueError(f"{len(bucket_of_example)} buckets and {len(repeats)} repeats given")
        if batch_size < 1 or min(repeats) < 1:
            raise ValueError(f"batch size ({batch_size}) and repeats (least {min(repeats)}) must be at least 1")
        self._batch_size = batch_size
        self._seed = seed
        extra = frozenset(regularisation)
        members: dict[Size, list[int]] = {}
        self._extra: dict[Size, list[int]] = {}
        for index, (bucket, times) in enumerate(zip(bucket_of_example, repeats, strict=True)):
            if index in extra:
                self._extra.setdefault(bucket, []).append(index)
            else:
                members.setdefault(bucket, []).extend([index] * times)
        if not members:
            raise ValueError("there are only regularisation pictures")
        counts = {bucket: len(indices) for bucket, indices in self._extra.items()}
        self._quotas = quotas(counts, sum(map(len, members.values())), ratio)
        self._buckets = {bucket: members.get(bucket, []) for bucket in sorted({*members, *self._quotas})}
        self._sizes = [
            length
            for bucket, indices in self._buckets.items()
            for length in batch_sizes({bucket: len(indices) + self._quotas.get(bucket, 0)}, batch_size)
        ]
        self._epoch: tuple[int, list[tuple[int, ...]]] = (-1, [])

    @property
    def mean_batch(self) -> float:
        """Mean number of pictures in a micro-batch: `batch_size` where no bucket ends with a short one."""
        return sum(self._sizes) / len(self._sizes)

    @property
    def batches_per_epoch(self) -> int:
        """Number of micro-batches in an epoch, the same for all of them."""
        return len(self._sizes)

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
        for bucket, always in self._buckets.items():
            members = always + self._drawn(bucket, epoch)
            order = [members[i] for i in torch.randperm(len(members), generator=source).tolist()]
            size = self._batch_size
            batches += [tuple(order[start : start + size]) for start in range(0, len(order), size)]
        return [batches[i] for i in torch.randperm(len(batches), generator=source).tolist()]

    def _drawn(self, bucket: Size, epoch: int) -> list[int]:
        """The regularisation pictures of a bucket in an epoch: the next ones of decks that are each shuffled anew."""
        count, pictures = self._quotas.get(bucket, 0), self._extra.get(bucket, [])
        drawn: list[int] = []
        while len(drawn) < count:
            deck, place = divmod(epoch * count + len(drawn), len(pictures))
            source = generator(self._seed, "regularisation", *bucket, deck)
            order = torch.randperm(len(pictures), generator=source).tolist()
            drawn += [pictures[i] for i in order[place : place + count - len(drawn)]]
        return drawn


def collate(examples: Sequence[Example]) -> Batch:
    """Stack examples of one bucket. Raises ValueError when there is none, or when their latents differ in shape."""
    shapes = {tuple(example.latent_CHW.shape) for example in examples}
    if len(shapes) != 1:
        raise ValueError(f"a batch needs examples of one shape, got {sorted(shapes)}")
    return Batch(
        latents_BCHW=torch.stack([example.latent_CHW for example in examples]),
        captions=[example.caption_LD for example in examples],
        indices=tuple(example.index for example in examples),
        weights=tuple(example.picture.weight for example in examples),
        masks_BHW=_stacked_masks(examples),
    )


def _stacked_masks(examples: Sequence[Example]) -> Tensor | None:
    if all(example.mask_HW is None for example in examples):
        return None
    everywhere_HW = torch.ones(examples[0].latent_CHW.shape[1:])
    return torch.stack([everywhere_HW if example.mask_HW is None else example.mask_HW for example in examples])

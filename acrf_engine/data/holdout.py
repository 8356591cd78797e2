"""Holding pictures out of the training, so that the loss can be measured on what was never trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from acrf_engine.data.errors import DataError
from acrf_engine.data.scan import Picture

if TYPE_CHECKING:
    from acrf_engine.data.cache import CachedDataset


def choose(pictures: Sequence[Picture], count: int, seed: int) -> frozenset[str]:
    """The sha256 of the `count` pictures to hold out: by content and seed alone, whatever they are called.

    Nothing of the regularisation set is held out. Every picture has a place in an order of its own, so adding or
    removing one changes the choice by one at most.
    Raises DataError where nothing would be left to train on.
    """
    pictures = [picture for picture in pictures if not picture.regularisation]
    if count and count >= len(pictures):
        raise DataError(
            f"validation.holdout: {count} pictures cannot be held out of {len(pictures)}: nothing is left to train on "
            f"({f'hold out {len(pictures) - 1} at most' if len(pictures) > 1 else 'add pictures, or hold out none'})"
        )

    def place(picture: Picture) -> bytes:
        return hashlib.sha256(f"{seed}:holdout:{picture.sha256}".encode()).digest()

    return frozenset(picture.sha256 for picture in sorted(pictures, key=place)[:count])


def split(dataset: CachedDataset, held_out: Collection[str]) -> tuple[CachedDataset, CachedDataset]:
    """The data set without the pictures held out, and those alone. Both keep the fingerprint of the whole."""

    def part(inside: bool) -> CachedDataset:
        wanted = [example for example in dataset.examples if (example.picture.sha256 in held_out) is inside]
        return replace(dataset, examples=tuple(replace(one, index=index) for index, one in enumerate(wanted)))

    return part(False), part(True)

"""What identifies a data set beyond contents and captions, as plain values that are hashed or compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from acrf_engine.data.buckets import Size, bucket_for
from acrf_engine.data.scan import Picture

Pairs = Sequence[tuple[Picture, Size]]


def data_parts(pairs: Pairs) -> dict[str, list[Any]]:
    """Everything that shapes the training, by names for people; names of files and folders do not count."""
    return {
        "pictures": [picture.sha256 for picture, _ in pairs],
        "captions": [picture.caption for picture, _ in pairs],
        "training sizes": [size for _, size in pairs],
        "repeats": [picture.repeats for picture, _ in pairs],
        "weights": [picture.weight for picture, _ in pairs],
        "masks": [_mask(picture) for picture, _ in pairs],
        "regularisation set": [picture.regularisation for picture, _ in pairs],
    }


def uncommon(pairs: Pairs, resolution: int) -> list[Any]:
    """What a fingerprint holds only where it is used, so that a data set without it keeps the one that it always had.

    Empty for pictures without masks and weights, all of them in their bucket of the run's resolution.
    """
    found: list[Any] = []
    if any(size != bucket_for(picture.width, picture.height, resolution) for picture, size in pairs):
        found.append(["sizes", [size for _, size in pairs]])
    if any(picture.mask for picture, _ in pairs):
        found.append(["masks", [_mask(picture) for picture, _ in pairs]])
    if any(picture.weight != 1 for picture, _ in pairs):
        found.append(["weights", [picture.weight for picture, _ in pairs]])
    if any(picture.regularisation for picture, _ in pairs):
        found.append(["regularisation", [picture.regularisation for picture, _ in pairs]])
    return found


def _mask(picture: Picture) -> list[Any] | None:
    mask = picture.mask
    return None if mask is None else [mask.sha256, mask.of_alpha, mask.minimum]

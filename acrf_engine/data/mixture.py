"""The mixture of an epoch: which pictures are seen at which size, how often, and how many of the regularisation set.

Without torch, so that the preflight check counts as training does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from acrf_engine.data.buckets import Size, training_sizes
from acrf_engine.data.scan import Picture


def placed(pictures: Sequence[Picture], resolution: int, upscale: bool = False) -> list[tuple[Picture, Size]]:
    """Every picture with each of its training sizes (width, height), in the order of the pictures."""
    return [
        (picture, size)
        for picture in pictures
        for size in training_sizes(picture.width, picture.height, picture.resolutions or (resolution,), upscale)
    ]


def quotas(counts: Mapping[Size, int], seen: int, ratio: float) -> dict[Size, int]:
    """How many regularisation pictures of each bucket one epoch has: `ratio` times `seen`, shared out by `counts`.

    Args:
        counts: number of regularisation pictures in each bucket.
        seen: how many training pictures one epoch has, repeats counted.
        ratio: above 0; at least one picture comes of it.

    Returns:
        Numbers that add up to the total, each within one of its share; the same for every epoch.
    """
    have = sum(counts.values())
    if not have:
        return {}
    total = max(round(ratio * seen), 1)
    shares = {size: divmod(total * count, have) for size, count in counts.items()}
    left = total - sum(whole for whole, _ in shares.values())
    for size in sorted(shares, key=lambda size: (-shares[size][1], size))[:left]:
        shares[size] = (shares[size][0] + 1, 0)
    return {size: whole for size, (whole, _) in sorted(shares.items())}


def epoch_counts(
    examples: Sequence[tuple[Picture, Size]], ratio: float, held_out: Collection[str] = ()
) -> dict[Size, int]:
    """How many pictures of each bucket one epoch has, fullest bucket first."""
    training: Counter[Size] = Counter()
    regularisation: Counter[Size] = Counter()
    for picture, size in examples:
        if picture.regularisation:
            regularisation[size] += 1
        elif picture.sha256 not in held_out:
            training[size] += picture.repeats
    training.update(quotas(regularisation, training.total(), ratio))
    return {size: count for size, count in training.most_common() if count}


def batch_sizes(counts: Mapping[Size, int], batch_size: int) -> list[int]:
    """The lengths of an epoch's micro-batches: full ones, and the rest of each bucket in a short one."""
    lengths: list[int] = []
    for count in counts.values():
        lengths += [batch_size] * (count // batch_size)
        lengths += [count % batch_size] if count % batch_size else []
    return lengths

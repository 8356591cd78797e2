"""What an epoch is made of: sizes, regularisation pictures, short batches; the check counts as training does."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from acrf_engine.data.batches import BatchPlan
from acrf_engine.data.buckets import bucket_for, fills, training_sizes
from acrf_engine.data.cache import CachedDataset, Example
from acrf_engine.data.loader import MicroBatches
from acrf_engine.data.mixture import batch_sizes, epoch_counts, placed, quotas
from acrf_engine.data.scan import Picture

Size = tuple[int, int]
SIZES = [(64, 64), (80, 48), (48, 80)]
quick = settings(deadline=None, max_examples=60)
sides = st.integers(16, 3000)
resolutions = st.integers(2, 80).map(lambda n: 16 * n)


def picture(index: int, regularisation: bool = False, repeats: int = 1, weight: float = 1.0) -> Picture:
    return Picture(Path(f"{index}.png"), str(index), 64, 64, "", False, repeats, weight, regularisation=regularisation)


def epoch(plan: BatchPlan, number: int) -> list[tuple[int, ...]]:
    return [plan.at(number * plan.batches_per_epoch + position) for position in range(plan.batches_per_epoch)]


# ---- sizes -----------------------------------------------------------------------------------------------------------


@quick
@given(sides, sides, st.lists(resolutions, min_size=1, max_size=3, unique=True))
def test_no_picture_is_enlarged_unless_asked(width: int, height: int, wanted: list[int]) -> None:
    found = training_sizes(width, height, wanted, upscale=False)
    assert found
    for w, h in found:
        assert w % 16 == h % 16 == 0
        assert w <= width
        assert h <= height
    for resolution in wanted:
        assert (bucket_for(width, height, resolution) in found) is fills(width, height, resolution)


@quick
@given(sides, sides, st.lists(resolutions, min_size=1, max_size=3, unique=True))
def test_when_asked_every_picture_is_seen_at_every_resolution(width: int, height: int, wanted: list[int]) -> None:
    found = training_sizes(width, height, wanted, upscale=True)
    assert set(found) == {bucket_for(width, height, resolution) for resolution in wanted}


@quick
@given(st.integers(256, 1023), st.integers(256, 1023))
def test_a_small_picture_loses_little_of_its_size(width: int, height: int) -> None:
    """Photographs of usual shapes below 1024 px: at least half of the pixels are kept."""
    if not 0.6 < width / height < 1.7:
        return
    ((w, h),) = training_sizes(width, height, [1024], upscale=False)
    assert w * h >= 0.5 * width * height


def test_small_pictures_of_many_sizes_share_few_buckets() -> None:
    found = {training_sizes(side, side, [1024], upscale=False) for side in range(256, 1024)}
    assert len(found) <= 16


# ---- regularisation --------------------------------------------------------------------------------------------------


@quick
@given(
    st.dictionaries(st.sampled_from(SIZES), st.integers(1, 40), min_size=1),
    st.integers(1, 300),
    st.floats(0.01, 5),
)
def test_quotas_add_up_and_follow_the_buckets(counts: dict[Size, int], seen: int, ratio: float) -> None:
    found = quotas(counts, seen, ratio)
    total = max(round(ratio * seen), 1)
    assert sum(found.values()) == total
    for size, count in counts.items():
        assert abs(found[size] - total * count / sum(counts.values())) < 1


mixtures = st.lists(
    st.tuples(st.sampled_from(SIZES), st.booleans(), st.integers(1, 3)), min_size=1, max_size=14
).filter(lambda items: not all(extra for _, extra, _ in items))


@quick
@given(mixtures, st.integers(1, 4), st.floats(0.1, 3), st.integers(0, 5))
def test_every_epoch_has_its_share_of_regularisation_pictures(
    items: list[tuple[Size, bool, int]], batch_size: int, ratio: float, number: int
) -> None:
    extra = {index for index, (_, is_extra, _) in enumerate(items) if is_extra}
    repeats = [times for _, _, times in items]
    plan = BatchPlan([size for size, _, _ in items], repeats, batch_size, 3, extra, ratio)
    batches = epoch(plan, number)
    seen = Counter(index for batch in batches for index in batch)
    training = {index: times for index, times in enumerate(repeats) if index not in extra}
    assert {index: seen[index] for index in training} == training
    drawn = sum(count for index, count in seen.items() if index in extra)
    assert drawn == (max(round(ratio * sum(training.values())), 1) if extra else 0)
    for batch in batches:
        assert len({items[index][0] for index in batch}) == 1
    # The preflight check counts the same, without a plan.
    examples = [(picture(index, index in extra, repeats[index]), size) for index, (size, _, _) in enumerate(items)]
    assert sorted(batch_sizes(epoch_counts(examples, ratio), batch_size)) == sorted(map(len, batches))


def test_a_large_regularisation_set_comes_round_over_the_epochs() -> None:
    """Ten pictures, three an epoch: after ten epochs each was seen three times, whatever order was asked for."""
    plan = BatchPlan([SIZES[0]] * 13, [1] * 13, 2, 0, range(3, 13), 1.0)
    seen = Counter(index for number in reversed(range(10)) for batch in epoch(plan, number) for index in batch)
    assert [seen[index] for index in range(3, 13)] == [3] * 10
    assert {index for batch in epoch(plan, 0) for index in batch} != {i for batch in epoch(plan, 1) for i in batch}


def test_regularisation_leaves_the_order_of_an_epoch_to_the_seed_and_its_number() -> None:
    def plan(seed: int) -> BatchPlan:
        return BatchPlan([SIZES[0]] * 13, [1] * 13, 2, seed, range(3, 13), 1.0)

    torch.manual_seed(0)
    forwards = [epoch(plan(1), number) for number in range(4)]
    again = plan(1)
    assert [epoch(again, number) for number in reversed(range(4))][::-1] == forwards
    assert [epoch(plan(2), number) for number in range(4)] != forwards


def test_without_training_pictures_there_is_no_plan() -> None:
    with pytest.raises(ValueError, match="only regularisation"):
        BatchPlan([SIZES[0]], [1], 1, 0, [0])


# ---- what a picture counts -------------------------------------------------------------------------------------------


def micro_batches(sizes: list[Size], batch_size: int, weights: list[float]) -> MicroBatches:
    examples = tuple(
        Example(
            index, picture(index, weight=weight), size, torch.zeros(1, size[1] // 8, size[0] // 8), torch.ones(1, 2)
        )
        for index, (size, weight) in enumerate(zip(sizes, weights, strict=True))
    )
    plan = BatchPlan(sizes, [1] * len(sizes), batch_size, 0)
    return MicroBatches(CachedDataset(examples, {"": torch.ones(1, 2)}, ""), plan, 0)


@quick
@given(st.lists(st.sampled_from(SIZES), min_size=1, max_size=20), st.integers(1, 6))
def test_every_picture_counts_the_same_in_an_epoch_whatever_its_bucket(sizes: list[Size], batch_size: int) -> None:
    """A picture's share of its batch's mean, times its weight; on average a batch weighs 1."""
    batches = micro_batches(sizes, batch_size, [1.0] * len(sizes))
    share: dict[int, float] = {}
    count = sum(-(-number // batch_size) for number in Counter(sizes).values())
    for number in range(count):
        batch = batches.at(number)
        for index, weight in zip(batch.indices, batch.weights, strict=True):
            share[index] = weight / len(batch.indices)
    assert all(value == pytest.approx(count / len(sizes)) for value in share.values())


def test_full_batches_weigh_exactly_1() -> None:
    batches = micro_batches([SIZES[0]] * 6 + [SIZES[1]] * 3, 3, [1.0] * 9)
    assert {batches.at(number).weights for number in range(3)} == {(1.0, 1.0, 1.0)}


def test_the_weight_of_a_source_reaches_the_batch() -> None:
    batches = micro_batches([SIZES[0]] * 4, 2, [1.0, 2.0, 0.5, 1.0])
    found = {}
    for number in range(2):
        batch = batches.at(number)
        found.update(zip(batch.indices, batch.weights, strict=True))
    assert found == {0: 1.0, 1: 2.0, 2: 0.5, 3: 1.0}


def test_a_picture_is_placed_at_every_size_that_it_fills() -> None:
    large = Picture(Path("a.png"), "a", 200, 200, "", False, 1, resolutions=(64, 128, 256))
    small = Picture(Path("b.png"), "b", 70, 70, "", False, 1, resolutions=(64, 128, 256))
    plain = Picture(Path("c.png"), "c", 70, 70, "", False, 1)
    assert [size for _, size in placed([large, small, plain], 48)] == [(64, 64), (128, 128), (64, 64), (48, 48)]

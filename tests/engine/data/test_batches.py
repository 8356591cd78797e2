from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from acrf_engine.data.batches import BatchPlan, collate
from acrf_engine.data.cache import Example
from acrf_engine.data.scan import Picture

BUCKETS = [(64, 64), (80, 48), (48, 80)]
datasets = st.lists(st.tuples(st.sampled_from(BUCKETS), st.integers(1, 4)), min_size=1, max_size=20)
quick = settings(deadline=None, max_examples=60)


def plan_of(dataset: list[tuple[tuple[int, int], int]], batch_size: int, seed: int) -> BatchPlan:
    return BatchPlan([bucket for bucket, _ in dataset], [repeats for _, repeats in dataset], batch_size, seed)


def epoch(plan: BatchPlan, number: int) -> list[tuple[int, ...]]:
    return [plan.at(number * plan.batches_per_epoch + position) for position in range(plan.batches_per_epoch)]


@quick
@given(datasets, st.integers(1, 6), st.integers(0, 2**63 - 1), st.integers(0, 1000))
def test_every_epoch_holds_each_example_exactly_as_often_as_asked(
    dataset: list[tuple[tuple[int, int], int]], batch_size: int, seed: int, number: int
) -> None:
    batches = epoch(plan_of(dataset, batch_size, seed), number)
    assert Counter(index for batch in batches for index in batch) == {
        index: repeats for index, (_, repeats) in enumerate(dataset)
    }
    for batch in batches:
        assert 1 <= len(batch) <= batch_size
        assert len({dataset[index][0] for index in batch}) == 1


@quick
@given(datasets, st.integers(1, 6), st.data())
def test_any_step_can_be_asked_for_in_any_order(
    dataset: list[tuple[tuple[int, int], int]], batch_size: int, data: st.DataObject
) -> None:
    plan = plan_of(dataset, batch_size, seed=7)
    in_order = [batch for number in range(3) for batch in epoch(plan, number)]
    steps = data.draw(st.lists(st.integers(0, len(in_order) - 1), max_size=12))
    assert [plan.at(step) for step in steps] == [in_order[step] for step in steps]
    assert [plan_of(dataset, batch_size, seed=7).at(step) for step in steps] == [in_order[step] for step in steps]


def test_epochs_and_seeds_give_different_orders() -> None:
    dataset = [(bucket, 1) for bucket in BUCKETS for _ in range(8)]
    orders = {tuple(epoch(plan_of(dataset, 2, seed), number)) for seed in (0, 1, 2) for number in (0, 1, 2)}
    assert len(orders) == 9


def test_buckets_take_turns_within_an_epoch() -> None:
    dataset = [(bucket, 1) for bucket in BUCKETS[:2] for _ in range(20)]
    shapes = [dataset[batch[0]][0] for batch in epoch(plan_of(dataset, 1, seed=0), 0)]
    changes = sum(a != b for a, b in pairwise(shapes))
    assert changes > 8


def test_every_example_is_as_likely_at_every_place() -> None:
    plan = plan_of([((64, 64), 1)] * 6, 2, seed=3)
    first = Counter(plan.at(3 * number)[0] for number in range(600))
    assert set(first) == set(range(6))
    assert all(60 < count < 145 for count in first.values())


def test_the_order_neither_follows_nor_disturbs_torchs_own_randomness() -> None:
    dataset = [((64, 64), 1)] * 10
    torch.manual_seed(1)
    state = torch.get_rng_state()
    order = epoch(plan_of(dataset, 3, seed=5), 4)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert epoch(plan_of(dataset, 3, seed=5), 4) == order


def test_a_bucket_smaller_than_the_batch_still_trains() -> None:
    plan = plan_of([((64, 64), 1)] * 5 + [((80, 48), 1)], 4, seed=0)
    assert plan.batches_per_epoch == 3
    assert sorted(len(batch) for batch in epoch(plan, 0)) == [1, 1, 4]


@pytest.mark.parametrize(
    ("sizes", "repeats", "batch_size"), [([], [], 1), ([(64, 64)], [], 1), ([(64, 64)], [0], 1), ([(64, 64)], [1], 0)]
)
def test_contradictions_are_refused(sizes: list[tuple[int, int]], repeats: list[int], batch_size: int) -> None:
    with pytest.raises(ValueError, match="repeats"):
        BatchPlan(sizes, repeats, batch_size, seed=0)


def test_a_negative_step_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        plan_of([((64, 64), 1)], 1, seed=0).at(-1)


def example(index: int, height: int = 8) -> Example:
    picture = Picture(Path(f"{index}.png"), "", 64, 64, "", False, 1)
    return Example(index, picture, (64, 64), torch.full((16, height, 8), float(index)), torch.ones(index + 1, 4))


def test_collate_stacks_latents_and_leaves_captions_at_their_length() -> None:
    batch = collate([example(3), example(0)])
    assert batch.latents_BCHW.shape == (2, 16, 8, 8)
    assert batch.latents_BCHW[:, 0, 0, 0].tolist() == [3.0, 0.0]
    assert [tuple(caption.shape) for caption in batch.captions] == [(4, 4), (1, 4)]
    assert batch.indices == (3, 0)


def test_collate_refuses_examples_of_different_buckets() -> None:
    with pytest.raises(ValueError, match="one shape"):
        collate([example(0), example(1, height=6)])
    with pytest.raises(ValueError, match="one shape"):
        collate([])

"""Section 2.2: which anchors a batch trains at, and the jitter around them."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from acrf_engine.method.anchors import scheduler_anchors
from acrf_engine.method.sampling import Deck, deal, jittered, random_indices, stratified_indices
from acrf_engine.randomness import generator

anchor_counts = st.integers(1, 20)
batch_sizes = st.integers(1, 50)


def assert_evenly_covered(anchors: list[int], count: int) -> None:
    """Every one of `count` anchors occurs floor(B / K) or ceil(B / K) times."""
    seen = Counter(anchors)
    least, most = len(anchors) // count, -(-len(anchors) // count)
    assert set(seen) <= set(range(count))
    assert all(least <= seen[anchor] <= most for anchor in range(count))


# ---- one batch on its own --------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(K=anchor_counts, B=st.integers(1, 64))
def test_picture_i_of_a_stratified_batch_trains_at_anchor_floor_i_k_over_b(K: int, B: int) -> None:
    B = max(B, K)
    indices = stratified_indices(B, K).tolist()
    assert indices == [int(np.floor(i * K / B + 1e-9)) for i in range(B)]
    assert_evenly_covered(indices, K)


@settings(deadline=None)
@given(K=st.integers(2, 20), B=st.integers(1, 19), seed=st.integers(0, 2**62), draw=st.integers(0, 10**9))
def test_a_batch_smaller_than_k_holds_no_anchor_twice(K: int, B: int, seed: int, draw: int) -> None:
    B = min(B, K - 1)
    indices = random_indices(B, K, seed, draw).tolist()
    assert len(indices) == len(set(indices)) == B
    assert set(indices) <= set(range(K))


def test_a_batch_at_least_as_large_as_k_is_stratified() -> None:
    assert torch.equal(random_indices(13, 10, seed=1, draw=5), stratified_indices(13, 10))


def test_random_batches_differ_from_draw_to_draw_and_from_seed_to_seed() -> None:
    first = [tuple(random_indices(4, 10, 0, draw).tolist()) for draw in range(50)]
    other = [tuple(random_indices(4, 10, 1, draw).tolist()) for draw in range(50)]
    assert len(set(first)) > 45
    assert first != other


# ---- the deck --------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(K=anchor_counts, B=batch_sizes, seed=st.integers(0, 2**62))
def test_every_aligned_block_of_k_draws_holds_each_anchor_once(K: int, B: int, seed: int) -> None:
    deck = Deck.of_batch(B, K, seed)
    cards = [card for draw in range(3 * K) for card in deck.at(draw).tolist()]
    assert len(cards) == 3 * K * B
    for start in range(0, len(cards), K):
        assert sorted(cards[start : start + K]) == list(range(K))


@settings(deadline=None)
@given(K=anchor_counts, B=batch_sizes, seed=st.integers(0, 2**62))
def test_no_batch_holds_an_anchor_more_often_than_it_must(K: int, B: int, seed: int) -> None:
    deck = Deck.of_batch(B, K, seed)
    for draw in range(2 * K):
        assert_evenly_covered(deck.at(draw).tolist(), K)


@settings(deadline=None, max_examples=60)
@given(
    K=st.integers(1, 12),
    sizes=st.lists(st.integers(1, 25), min_size=1, max_size=8),
    seed=st.integers(0, 2**62),
)
def test_short_batches_at_a_buckets_end_change_nothing_of_that(K: int, sizes: list[int], seed: int) -> None:
    """The order of the batch sizes differs from epoch to epoch, as shuffling makes it."""

    def of_epoch(epoch: int) -> list[int]:
        order = np.random.default_rng(epoch).permutation(len(sizes))
        return [sizes[index] for index in order]

    deck = Deck(K, seed, of_epoch)
    epochs = 2 * K
    hands = [deck.at(draw).tolist() for draw in range(epochs * len(sizes))]

    assert [len(hand) for hand in hands] == [size for epoch in range(epochs) for size in of_epoch(epoch)]
    for hand in hands:
        assert_evenly_covered(hand, K)
    cards = [card for hand in hands for card in hand]
    assert all(sorted(cards[start : start + K]) == list(range(K)) for start in range(0, len(cards), K))


@settings(deadline=None, max_examples=40)
@given(K=st.integers(1, 12), B=st.integers(1, 15), draws=st.lists(st.integers(0, 500), min_size=1, max_size=20))
def test_a_resumed_run_draws_what_a_straight_one_would(K: int, B: int, draws: list[int]) -> None:
    straight = Deck.of_batch(B, K, seed=3)
    in_order = [straight.at(draw).tolist() for draw in range(max(draws) + 1)]
    for draw in draws:
        assert Deck.of_batch(B, K, seed=3).at(draw).tolist() == in_order[draw]
    jumping = Deck.of_batch(B, K, seed=3)
    assert [jumping.at(draw).tolist() for draw in draws] == [in_order[draw] for draw in draws]


def test_the_deck_is_shuffled_anew_each_time_round() -> None:
    deck = Deck.of_batch(10, 10, seed=0)
    orders = {tuple(deck.at(draw).tolist()) for draw in range(30)}
    assert len(orders) > 25


def test_every_anchor_follows_every_other_sooner_or_later() -> None:
    """Shuffling must be fair also where a batch straddles two decks."""
    deck = Deck.of_batch(3, 5, seed=0)
    cards = [card for draw in range(2000) for card in deck.at(draw).tolist()]
    followers = Counter(pairwise(cards))
    assert {(a, b) for a in range(5) for b in range(5) if a != b} <= set(followers)


def test_dealing_uses_nothing_but_its_generator() -> None:
    torch.manual_seed(1)
    first = deal([3, 4, 3], 5, generator(0, "x"))
    torch.manual_seed(2)
    assert deal([3, 4, 3], 5, generator(0, "x")) == first


# ---- jitter ----------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(eta=st.floats(0, 0.5), draw=st.integers(0, 10**6))
def test_uniform_jitter_stays_within_eta_of_the_anchor(eta: float, draw: int) -> None:
    anchors = scheduler_anchors(10)
    indices = torch.arange(10).repeat(10)
    sigma = jittered(anchors, indices, eta, "uniform", seed=0, draw=draw)
    assert ((sigma - anchors[indices].clamp(0.001, 0.999)).abs() <= eta + 1e-6).all()


@settings(deadline=None)
@given(eta=st.floats(0, 0.5), draw=st.integers(0, 10**6), kind=st.sampled_from(["uniform", "normal"]))
def test_sigma_is_clamped_in_float32(eta: float, draw: int, kind: str) -> None:
    anchors = scheduler_anchors(10)
    sigma = jittered(anchors, torch.arange(10), eta, kind, seed=0, draw=draw)
    assert sigma.dtype == torch.float32
    assert ((sigma >= np.float32(0.001)) & (sigma <= np.float32(0.999))).all()
    assert (sigma < 1).all()  # what a clamp in bfloat16 would not give


def test_without_jitter_sigma_is_the_anchor() -> None:
    anchors = scheduler_anchors(10)
    sigma = jittered(anchors, torch.arange(10), 0.0, "uniform", seed=0, draw=0)
    assert torch.equal(sigma, anchors.clamp(0.001, 0.999))


@pytest.mark.parametrize(("kind", "spread"), [("uniform", 0.02 / 3**0.5), ("normal", 0.02)])
def test_the_jitter_has_the_spread_of_its_distribution(kind: str, spread: float) -> None:
    middle = torch.full((1,), 0.5)
    sigma = jittered(middle, torch.zeros(40_000, dtype=torch.long), 0.02, kind, seed=0, draw=0)
    assert sigma.mean().item() == pytest.approx(0.5, abs=1e-3)
    assert sigma.std().item() == pytest.approx(spread, rel=0.03)


def test_the_same_seed_and_draw_give_the_same_sigma_whatever_else_is_drawn() -> None:
    def sigma() -> torch.Tensor:
        return jittered(scheduler_anchors(10), torch.arange(10), 0.02, "uniform", seed=5, draw=9)

    first = sigma()
    torch.rand(17)
    assert torch.equal(sigma(), first)
    assert not torch.equal(jittered(scheduler_anchors(10), torch.arange(10), 0.02, "uniform", seed=5, draw=10), first)

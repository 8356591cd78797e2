"""Which anchors a batch trains at (paper, section 2.2), and the jitter around them.

Theorem 1 holds only when every anchor is covered. With the paper's own batch size of 1 that never happens inside a
batch, so anchors are dealt from a shuffled deck across micro-batches: every aligned block of K draws holds each anchor
once, and no batch holds one more often than it must.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from acrf_engine.randomness import generator

SIGMA_MIN, SIGMA_MAX = 0.001, 0.999
"""Range of sigma after jitter (appendix B)."""

Jitter = Literal["uniform", "normal"]


def stratified_indices(batch: int, anchors: int) -> Tensor:
    """Case 1 of section 2.2, B >= K: picture i trains at anchor floor(i K / B).

    Returns:
        int64 [B]; every anchor occurs floor(B / K) or ceil(B / K) times.
    """
    return torch.arange(batch) * anchors // batch


def random_indices(batch: int, anchors: int, seed: int, draw: int) -> Tensor:
    """Both cases of section 2.2 for one batch on its own: stratified for B >= K, else B anchors without replacement.

    Args:
        seed: of the run. draw: the micro-batch's number, from 0.

    Returns:
        int64 [B].
    """
    if batch >= anchors:
        return stratified_indices(batch, anchors)
    return torch.randperm(anchors, generator=generator(seed, "anchors", draw))[:batch]


class Deck:
    """Section 2.2 over time: every micro-batch gets the next cards of an endless row of shuffled decks of K anchors.

    A batch of B >= K covers every anchor, as in case 1; one of B < K holds no anchor twice, as in case 2; and over all
    draws every aligned block of K holds each anchor once. A function of (seed, draw): nothing needs to be saved.

    Args:
        anchors: K. seed: of the run.
        sizes: the batch sizes of an epoch, which may end its buckets with short batches; the number of batches and of
            pictures is the same in every epoch.
    """

    def __init__(self, anchors: int, seed: int, sizes: Callable[[int], Sequence[int]]) -> None:
        self._anchors = anchors
        self._seed = seed
        self._sizes = sizes
        first = sizes(0)
        self._batches = len(first)
        # After this many epochs an epoch and a deck begin together, and nothing reaches across that border.
        self._span_epochs = anchors // math.gcd(sum(first), anchors)
        self._span: tuple[int, list[list[int]]] = (-1, [])

    @classmethod
    def of_batch(cls, batch: int, anchors: int, seed: int) -> Deck:
        """A deck for batches of one size."""
        return cls(anchors, seed, lambda _epoch: [batch])

    def at(self, draw: int) -> Tensor:
        """Anchors of micro-batch `draw` (from 0): int64 [B]."""
        span, batch = divmod(draw, self._batches * self._span_epochs)
        if self._span[0] != span:
            epochs = range(span * self._span_epochs, (span + 1) * self._span_epochs)
            sizes = [size for epoch in epochs for size in self._sizes(epoch)]
            self._span = (span, deal(sizes, self._anchors, generator(self._seed, "deck", span)))
        return torch.tensor(self._span[1][batch])


def deal(sizes: Sequence[int], anchors: int, source: torch.Generator) -> list[list[int]]:
    """Deal whole decks of K anchors to batches of these sizes; the sizes add up to a multiple of K.

    A batch that straddles two decks takes from the second first what it does not hold yet, so that it holds each anchor
    floor(B / K) or ceil(B / K) times.
    """
    cards: list[int] = []
    hands: list[list[int]] = []
    begin = 0
    for size in sizes:
        end = begin + size
        while len(cards) < end:
            deck: list[int] = torch.randperm(anchors, generator=source).tolist()
            held = set(cards[begin : begin + (len(cards) - begin) % anchors])
            wanted = end - len(cards)
            head = sorted(deck, key=held.__contains__)[:wanted] if held else deck[:wanted]
            cards += head + [card for card in deck if card not in head]
        hands.append(cards[begin:end])
        begin = end
    return hands


def jittered(anchors_K: Tensor, indices_B: Tensor, scale: float, kind: Jitter, seed: int, draw: int) -> Tensor:
    """Sigma of every picture: its anchor plus jitter, clamped to [0.001, 0.999] in float32.

    Args:
        anchors_K: float32 [K]. indices_B: int64 [B].
        scale: eta. kind: uniform(-eta, eta) of section 2.2, or eta times a normal draw of appendix B.

    Returns:
        float32 [B]. (In bfloat16 a clamp to 0.999 gives 1.0, so this stays in float32.)
    """
    sigma_B = anchors_K.float()[indices_B]
    if scale > 0:
        source = generator(seed, "jitter", draw)
        if kind == "uniform":
            noise_B = torch.rand(sigma_B.shape, generator=source) * 2 - 1
        else:
            noise_B = torch.randn(sigma_B.shape, generator=source)
        sigma_B = sigma_B + scale * noise_B
    return sigma_B.clamp(SIGMA_MIN, SIGMA_MAX)

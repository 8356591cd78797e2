"""Pictures are decoded side by side, and come out in order."""

from __future__ import annotations

import threading

import pytest

from acrf_engine.data.decoding import decoded_ahead

PATIENCE_S = 20


def test_as_many_are_decoded_at_the_same_time_as_there_are_threads() -> None:
    """Each waits until all three are at work, which never comes true one after the other."""
    together = threading.Barrier(3)

    def decode(item: int) -> int:
        together.wait(PATIENCE_S)
        return 10 * item

    assert list(decoded_ahead(decode, range(6), threads=3)) == [0, 10, 20, 30, 40, 50]


def test_the_first_may_take_longest_and_still_comes_first() -> None:
    others_done = threading.Event()

    def decode(item: int) -> int:
        if item == 0:
            assert others_done.wait(PATIENCE_S)
        if item == 2:
            others_done.set()
        return item

    assert list(decoded_ahead(decode, range(4), threads=2)) == [0, 1, 2, 3]


def test_a_picture_that_fails_is_told_in_its_turn_and_nothing_further_is_begun() -> None:
    begun: list[int] = []

    def decode(item: int) -> int:
        begun.append(item)
        if item == 1:
            raise ValueError("broken")
        return item

    results = decoded_ahead(decode, range(100), threads=2)
    assert next(results) == 0
    with pytest.raises(ValueError, match="broken"):
        next(results)
    assert len(begun) <= 4

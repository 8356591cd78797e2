"""Which pictures are held out of the training."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acrf_engine.data.errors import DataError
from acrf_engine.data.holdout import choose
from acrf_engine.data.scan import Picture


def picture(number: int) -> Picture:
    return Picture(Path(f"/photos/{number}.png"), hashlib.sha256(b"%d" % number).hexdigest(), 64, 64, "", True, 1)


@settings(deadline=None)
@given(total=st.integers(2, 60), seed=st.integers(0, 2**63 - 1), data=st.data())
def test_the_choice_has_the_size_asked_for_and_follows_from_content_and_seed(
    total: int, seed: int, data: st.DataObject
) -> None:
    pictures = [picture(number) for number in range(total)]
    count = data.draw(st.integers(0, total - 1))
    chosen = choose(pictures, count, seed)
    assert len(chosen) == count
    assert chosen <= {one.sha256 for one in pictures}
    renamed = [dataclasses.replace(one, path=Path("/other") / one.path.name, caption="x") for one in pictures]
    assert choose(data.draw(st.permutations(renamed)), count, seed) == chosen


@given(total=st.integers(3, 40), seed=st.integers(0, 1000))
def test_a_picture_more_changes_the_choice_by_one_at_most(total: int, seed: int) -> None:
    pictures = [picture(number) for number in range(total)]
    assert len(choose(pictures[:-1], total // 2, seed) - choose(pictures, total // 2, seed)) <= 1


def test_every_picture_is_held_out_by_some_seed() -> None:
    pictures = [picture(number) for number in range(8)]
    assert set().union(*(choose(pictures, 1, seed) for seed in range(200))) == {one.sha256 for one in pictures}


@pytest.mark.parametrize(("total", "advice"), [(4, "hold out 3 at most"), (1, "add pictures")])
def test_something_is_left_to_train_on(total: int, advice: str) -> None:
    pictures = [picture(number) for number in range(total)]
    for count in (total, total + 1):
        with pytest.raises(DataError, match=rf"validation.holdout: {count} pictures .* nothing is left.*{advice}"):
            choose(pictures, count, 0)

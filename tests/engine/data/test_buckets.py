from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from acrf_engine.data.buckets import bucket_for, buckets, resize_and_crop
from acrf_engine.data.errors import DataError

resolutions = st.integers(1, 128).map(lambda n: 16 * n)
sides = st.integers(16, 20_000)


def test_the_tiny_model_has_three_buckets() -> None:
    assert buckets(64) == ((48, 80), (64, 64), (80, 48))


def test_at_full_size_the_usual_shapes_have_their_bucket() -> None:
    assert (1024, 1024) in buckets(1024)
    assert bucket_for(4000, 3000, 1024) == (1184, 880)
    assert bucket_for(3000, 4000, 1024) == (880, 1184)
    assert bucket_for(1920, 1080, 1024) == (1360, 768)
    assert bucket_for(10_000, 100, 1024) == max(buckets(1024))


@given(resolutions, st.sampled_from([1.0, 1.5, 2.0, 3.0]))
def test_buckets_fill_the_area_and_never_exceed_it(resolution: int, max_ratio: float) -> None:
    found = buckets(resolution, max_ratio=max_ratio)
    assert (resolution, resolution) in found
    assert len(set(found)) == len(found)
    for width, height in found:
        assert width % 16 == height % 16 == 0
        assert width * height <= resolution**2 < min((width + 16) * height, width * (height + 16))
        assert max(width, height) <= max_ratio * min(width, height)
        assert (height, width) in found


@given(resolutions, sides, st.floats(0.4, 2.5))
def test_a_picture_gets_the_bucket_of_nearest_shape(resolution: int, height: int, aspect: float) -> None:
    width = max(round(height * aspect), 1)
    chosen = bucket_for(width, height, resolution)

    def factor(size: tuple[int, int]) -> float:
        return abs(math.log((width / height) / (size[0] / size[1])))

    assert factor(chosen) <= min(map(factor, buckets(resolution))) + 1e-12
    assert bucket_for(height, width, resolution) == chosen[::-1]


def test_nearest_is_meant_as_a_factor() -> None:
    # 1.31 is nearer to 1 by difference, and nearer to 80/48 by factor.
    assert bucket_for(1310, 1000, 64) == (80, 48)
    assert bucket_for(1000, 1310, 64) == (48, 80)


@given(resolutions, sides)
def test_a_square_stays_square(resolution: int, side: int) -> None:
    assert bucket_for(side, side, resolution) == (resolution, resolution)


@pytest.mark.parametrize(("resolution", "use"), [(1000, "992 or 1008"), (8, "16"), (0, "16"), (-64, "16")])
def test_an_impossible_resolution_is_an_error_with_a_way_out(resolution: int, use: str) -> None:
    with pytest.raises(DataError) as caught:
        buckets(resolution)
    assert str(resolution) in caught.value.message
    assert use in caught.value.message


@settings(deadline=None, max_examples=60)
@given(st.tuples(st.integers(16, 900), st.integers(16, 900)), st.sampled_from(buckets(256)))
def test_the_result_has_exactly_the_size_of_the_bucket(source: tuple[int, int], size: tuple[int, int]) -> None:
    assert resize_and_crop(Image.new("RGB", source), size).size == size


@pytest.mark.parametrize("source", [(16, 4000), (4000, 16), (64, 64), (63, 65)])
def test_extreme_shapes_are_covered_too(source: tuple[int, int]) -> None:
    result = resize_and_crop(Image.new("RGB", source, "red"), (80, 48))
    assert result.size == (80, 48)
    assert result.getcolors() == [(80 * 48, (255, 0, 0))]


def test_the_crop_keeps_the_middle_and_does_not_distort() -> None:
    # A disc of 100 pixels in the middle of a wide picture: it must stay round and central.
    y, x = np.mgrid[0:200, 0:400]
    disc = np.where((x - 199.5) ** 2 + (y - 99.5) ** 2 < 50**2, 255, 0).astype(np.uint8)
    cropped = np.asarray(resize_and_crop(Image.fromarray(disc).convert("RGB"), (64, 64)))[:, :, 0] > 127
    rows, columns = np.nonzero(cropped)
    assert abs(np.ptp(rows) - np.ptp(columns)) <= 1
    assert abs(np.ptp(rows) + 1 - 32) <= 1
    assert abs(rows.mean() - 31.5) < 0.5
    assert abs(columns.mean() - 31.5) < 0.5


def test_a_picture_that_fits_already_is_not_touched(photos: dict[str, Image.Image]) -> None:
    square = photos["astronaut"].crop((0, 0, 64, 64))
    assert resize_and_crop(square, (64, 64)).tobytes() == square.tobytes()

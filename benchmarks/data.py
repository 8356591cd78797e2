"""Caching: how much faster several threads decode photographs than one, in alternating blocks."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.live import median_with_interval
from benchmarks.table import row

PICTURES, SIDE, RESOLUTION = 6, (4000, 3000), 1024
BLOCKS, QUICK_BLOCKS = 8, 2


def measure(quick: bool = False) -> Iterator[dict[str, Any]]:
    """Rows of the table."""
    import skimage.data
    from PIL import Image

    from acrf_engine.config import DatasetSource
    from acrf_engine.data.cache import _pixels, _View
    from acrf_engine.data.decoding import DECODE_THREADS, decoded_ahead
    from acrf_engine.data.mixture import placed
    from acrf_engine.data.scan import scan

    with tempfile.TemporaryDirectory() as folder:
        photograph = Image.fromarray(skimage.data.astronaut()).resize(SIDE)
        for number in range(PICTURES):
            photograph.rotate(number).save(Path(folder, f"{number}.jpg"), quality=92)
        pairs = placed(scan([DatasetSource(path=folder)]).pictures, RESOLUTION)
        views = [_View(picture, size, False) for picture, size in pairs]

        def seconds(threads: int) -> float:
            started = time.perf_counter()
            for _ in decoded_ahead(_pixels, views, threads):
                pass
            return time.perf_counter() - started

        seconds(1)
        ratios = [seconds(1) / seconds(DECODE_THREADS) for _ in range(QUICK_BLOCKS if quick else BLOCKS)]
    ratio, text = median_with_interval(ratios)
    yield row(
        f"data: decoding 12 MP JPEG, 1 thread / {DECODE_THREADS} threads, {os.cpu_count()} cores",
        text,
        ratio,
        "at least 1",
        ratio >= 1,
    )

"""Caching: how much faster several threads decode photographs than one, in alternating blocks."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.engine import _interval

PICTURES, BLOCKS, SIDE, RESOLUTION = 6, 8, (4000, 3000), 1024


def measure() -> Iterator[dict[str, Any]]:
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
        ratios = [seconds(1) / seconds(DECODE_THREADS) for _ in range(BLOCKS)]
    low, high = _interval(ratios)
    ratio = statistics.median(ratios)
    yield {
        "what": f"data: decoding 12 MP JPEG, 1 thread / {DECODE_THREADS} threads, {os.cpu_count()} cores",
        "measured": f"{ratio:.2f} [{low:.2f}, {high:.2f}]",
        "value": ratio,
        "bound": "at least 1",
        "ok": ratio >= 1,
    }

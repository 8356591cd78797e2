"""The demo data set that ships is what the program draws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from acrf_engine.config import ASSETS
from acrf_engine.model.tiny.demo_style import write_demo


def test_the_demo_pictures_drawn_anew_are_those_that_ship(tmp_path: Path) -> None:
    """Every pixel and every caption; another release of Pillow may compress the same pixels to other bytes."""
    write_demo(tmp_path)
    shipped = {path.name: path for path in (ASSETS / "demo").iterdir()}
    drawn = {path.name: path for path in tmp_path.iterdir()}
    assert drawn.keys() == shipped.keys()
    for name, path in drawn.items():
        if path.suffix == ".txt":
            assert path.read_bytes() == shipped[name].read_bytes(), name
        else:
            assert np.array_equal(np.asarray(Image.open(path)), np.asarray(Image.open(shipped[name]))), name

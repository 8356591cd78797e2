"""Real photographs, and folders of them, for the tests of the data package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import skimage.data
from PIL import Image

from acrf_engine.config import DatasetSource


@pytest.fixture(scope="session")
def photos() -> dict[str, Image.Image]:
    """Photographs from scikit-image's wheel, all RGB, no side above 200 pixels."""
    found = {}
    for name in ("astronaut", "chelsea", "coffee", "rocket"):
        found[name] = Image.fromarray(getattr(skimage.data, name)()).convert("RGB")
        found[name].thumbnail((200, 200))
    return found


@pytest.fixture
def source() -> Callable[..., DatasetSource]:
    """A source as the config gives it: path, then options by name."""
    return lambda path, **options: DatasetSource(path=path, **options)


@pytest.fixture
def folder(tmp_path: Path, photos: dict[str, Image.Image]) -> Path:
    """Three captioned photographs, square, wide and wide."""
    home = tmp_path / "photos"
    home.mkdir()
    for name in ("astronaut", "chelsea", "coffee"):
        photos[name].save(home / f"{name}.png")
        (home / f"{name}.txt").write_text(f"a photo of {name}", encoding="utf-8")
    return home

"""A tiny model that stays the same while the tests run, real photographs, and trainers of a run on both."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import skimage.data
from PIL import Image

from acrf_engine.config import ASSETS, RunConfig, build_config, dump
from acrf_engine.run.folder import RunFolder, create_run

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy: the packaged one may be trained anew while the tests run."""
    return Path(shutil.copytree(ASSETS / "tiny", tmp_path_factory.mktemp("model") / "tiny"))


@pytest.fixture(scope="session")
def photo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four photographs of different shapes, captioned."""
    folder = tmp_path_factory.mktemp("photos")
    for name in PHOTOGRAPHS:
        picture = Image.fromarray(getattr(skimage.data, name)()).convert("RGB")
        picture.thumbnail((128, 128))
        picture.save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(f"a photo of {name}", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def make_config(tiny_model: Path, photo_folder: Path) -> Callable[..., RunConfig]:
    """A config of the tiny run; groups are given as dicts."""

    def make(**values: Any) -> RunConfig:
        base = {"model": str(tiny_model), "dataset": str(photo_folder), "steps": 12, "optimizer": "AdamW"}
        return build_config({**base, **values})

    return make


@pytest.fixture
def make_trainer(tmp_path: Path, make_config: Callable[..., RunConfig]) -> Callable[..., Any]:
    """A trainer with everything loaded anew, as a fresh process has it; the same `name` resumes that run."""
    from acrf_engine.training.preparation import prepare
    from acrf_engine.training.trainer import Trainer

    def make(name: str = "run", said: list[Any] | None = None, **values: Any) -> Trainer:
        config = make_config(**values)
        path = tmp_path / "runs" / name
        folder = RunFolder(path) if path.exists() else create_run(path.parent, name, dump(config))
        prepared = prepare(config, lambda _event: None, lambda: None)
        return Trainer(config, folder, prepared, said.append if said is not None else lambda _event: None)

    return make

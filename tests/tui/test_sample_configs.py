"""The configs that come with the program: each valid, each of its own kind, each saying who it is for."""

from __future__ import annotations

from pathlib import Path

import pytest

from acrf_engine.config import absolute, load_config
from acrf_tui.screens.launchpad_configs import FIRST, sample_configs
from acrf_tui.shipped import shipped

CONFIGS = sorted(shipped("sample_configs").glob("*.yaml"))


def test_there_are_enough_and_the_demo_comes_first() -> None:
    assert len(CONFIGS) >= 6
    assert [entry.name for entry in sample_configs()[: len(FIRST)]] == list(FIRST)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_sample_config_runs_as_it_stands(path: Path) -> None:
    config = absolute(load_config(path))
    assert config.model == "tiny"
    assert config.dataset == "demo"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_sample_config_says_who_it_is_for(path: Path) -> None:
    comment = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        comment.append(line)
    assert 1 <= len(comment) <= 3
    entry = next(entry for entry in sample_configs() if entry.path == path)
    assert entry.description.startswith("For ")
    assert 8 <= len(entry.audience) <= 60


def test_no_two_sample_configs_are_the_same() -> None:
    seen: dict[str, str] = {}
    for path in CONFIGS:
        settings = load_config(path).model_dump_json()
        assert settings not in seen or {path.stem, seen[settings]} == {"demo", "paper-defaults"}, (path, seen[settings])
        seen.setdefault(settings, path.stem)
    descriptions = [entry.description for entry in sample_configs()]
    assert len(set(descriptions)) == len(descriptions)

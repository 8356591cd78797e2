"""`acrf-tui trash`: what was deleted is listed, comes back, or goes for good."""

from __future__ import annotations

from pathlib import Path

import pytest

from acrf_engine.run.trash import trash_run
from acrf_tui.cli import main
from tests.tui.test_launchpad import make_run


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    trash_run(make_run(tmp_path / "runs", "old-face", "finished"))
    return tmp_path / "runs"


def trash(runs: Path, *arguments: str) -> int:
    return main(["trash", "--runs", str(runs), *arguments])


def test_a_deleted_run_is_listed_and_comes_back(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert trash(runs) == 0
    assert "old-face" in capsys.readouterr().out
    assert trash(runs, "--restore", "old-face") == 0
    assert (runs / "old-face" / "config.yaml").exists()
    assert trash(runs) == 0
    assert "the trash is empty" in capsys.readouterr().out


def test_an_unknown_name_is_refused_and_the_known_ones_are_named(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trash(runs, "--restore", "old-fase") == 2
    assert "there is no old-fase in the trash (old-face)" in capsys.readouterr().err


def test_an_emptied_trash_holds_nothing(runs: Path) -> None:
    assert trash(runs, "--empty") == 0
    assert not [path for path in (runs / ".trash").rglob("*") if path.is_file()]

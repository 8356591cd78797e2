"""Deleting moves aside, restoring moves back, and a run that goes on is left alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from acrf_engine.run import trash
from acrf_engine.run.folder import RunError, RunFolder, create_run, list_runs, remember


@pytest.fixture(autouse=True)
def _state_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def ended(runs: Path, name: str = "night") -> RunFolder:
    folder = create_run(runs, name, "model: tiny\n")
    status = folder.recorded_status()
    status.state = "finished"
    folder.write_status(status)
    return folder


def test_a_deleted_run_is_listed_no_more_and_comes_back_whole(tmp_path: Path) -> None:
    folder = ended(tmp_path / "runs")
    before = sorted((path.name, path.read_bytes()) for path in folder.path.iterdir())
    item = trash.trash_run(folder)
    assert not folder.path.exists()
    assert list_runs(tmp_path / "runs") == []
    assert (item.path.parent, item.origin) == (tmp_path / "runs" / ".trash", folder.path)
    assert item.path.parent.stat().st_mode & 0o777 == 0o700
    assert [found.name for found in trash.trashed(trash.trash_folders(tmp_path / "runs"))] == ["night"]
    assert trash.restore(item) == folder.path
    after = {path.name: path.read_bytes() for path in folder.path.iterdir()}
    assert {name: after[name] for name, _ in before} == dict(before)
    assert [run.path for run in list_runs(tmp_path / "runs")] == [folder.path]


def test_a_run_that_goes_on_is_not_deleted(tmp_path: Path) -> None:
    folder = create_run(tmp_path, "live", "model: tiny\n")  # about to start
    with pytest.raises(RunError, match="live is starting: stop it first"):
        trash.trash_run(folder)
    status = folder.recorded_status()
    status.state = "finished"
    folder.write_status(status)
    with folder.hold(), pytest.raises(RunError, match="held"):  # its supervisor has not let go yet
        trash.trash_run(folder)
    assert folder.path.is_dir()


def test_a_run_that_cannot_be_read_may_be_deleted_and_one_that_is_gone_is_said(tmp_path: Path) -> None:
    folder = ended(tmp_path)
    folder.status.write_text("{")
    trash.trash_run(folder)
    assert not folder.path.exists()
    with pytest.raises(RunError, match="no such run"):
        trash.trash_run(folder)


def test_the_same_name_may_be_deleted_twice_in_a_second(tmp_path: Path) -> None:
    items = [trash.trash_run(ended(tmp_path)) for _ in range(3)]
    assert len({item.path for item in items}) == 3
    found = trash.trashed([tmp_path / ".trash"])
    assert [item.name for item in found] == ["night"] * 3


@pytest.mark.parametrize("name", ["a-20200101-000000", "x.yaml", "n-2", "写真 1"])
def test_names_that_look_like_stamps_come_back_as_they_were(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("x")
    trash.trash_path(path)
    (item,) = trash.trashed([tmp_path / ".trash"])
    assert item.name == name
    assert trash.restore(item) == path


def test_a_place_that_is_taken_again_is_not_overwritten(tmp_path: Path) -> None:
    first = trash.trash_run(ended(tmp_path))
    second = ended(tmp_path)
    with pytest.raises(RunError, match="exists again"):
        trash.restore(first)
    assert second.config.read_text() == "model: tiny\n"
    assert first.path.exists()
    second.path.rename(tmp_path / "other")
    trash.empty([first])
    with pytest.raises(RunError, match="not in the trash any more"):
        trash.restore(first)


def test_emptying_frees_the_room_and_leaves_what_is_not_ours(tmp_path: Path) -> None:
    folder = ended(tmp_path)
    (folder.path / "big.bin").write_bytes(os.urandom(1_000_000))
    item = trash.trash_run(folder)
    stranger = item.path.parent / "notes.txt"
    stranger.write_text("mine")
    assert trash.size_of(item.path) >= 1_000_000
    assert trash.empty(trash.trashed([item.path.parent])) == []
    assert not item.path.exists()
    assert stranger.exists()
    with pytest.raises(ValueError, match="not in a trash"):
        trash.empty([trash.Trashed(tmp_path / "precious", "precious", 0.0)])


def test_the_trash_of_runs_elsewhere_is_found_after_the_last_of_them_was_deleted(tmp_path: Path) -> None:
    folder = ended(tmp_path / "elsewhere", "far")
    remember(folder)
    trash.trash_run(folder)
    assert [item.name for item in trash.trashed(trash.trash_folders(tmp_path / "runs"))] == ["far"]

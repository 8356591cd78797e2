"""Saving a config: whole or not at all, as it was written, never over what somebody else wrote."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from acrf_tui.screens import editor_files
from acrf_tui.screens.editor_files import (
    FileTrouble,
    Overtaken,
    Source,
    draft_file,
    drop_draft,
    encoded,
    find_draft,
    found_by_launchpad,
    fresh_path,
    is_shipped,
    keep_draft,
    read_source,
    save,
    saving_folders,
)
from acrf_tui.screens.launchpad_configs import own_config_folder, own_configs
from acrf_tui.shipped import shipped


@pytest.fixture(autouse=True)
def home(here: Path) -> Path:
    return here


def test_a_file_is_replaced_whole_and_keeps_its_mode(home: Path) -> None:
    path = home / "a.yaml"
    path.write_bytes(b"epochs: 1\n")
    path.chmod(0o640)
    source = read_source(path)
    saved = save(path, "epochs: 2\n", source, source.raw)
    assert path.read_bytes() == saved.raw == b"epochs: 2\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert os.listdir(home) == ["a.yaml"]


def test_a_link_stays_a_link(home: Path) -> None:
    (home / "real.yaml").write_bytes(b"epochs: 1\n")
    (home / "link.yaml").symlink_to("real.yaml")
    save(home / "link.yaml", "epochs: 2\n", Source(), b"epochs: 1\n")
    assert (home / "link.yaml").is_symlink()
    assert (home / "real.yaml").read_bytes() == b"epochs: 2\n"


@pytest.mark.parametrize("raw", [b"a: 1\r\nb: 2\r\n", b"\xef\xbb\xbfa: 1\n", b"\xef\xbb\xbfa: 1\r\n", b"a: 1", b""])
def test_line_ends_and_byte_order_mark_stay_as_they_were(home: Path, raw: bytes) -> None:
    (home / "a.yaml").write_bytes(raw)
    source = read_source(home / "a.yaml")
    assert "\r" not in source.text
    assert encoded(source.text, source) == raw


def test_what_somebody_else_wrote_meanwhile_is_not_overwritten(home: Path) -> None:
    path = home / "a.yaml"
    path.write_bytes(b"epochs: 1\n")
    with pytest.raises(Overtaken):
        save(path, "epochs: 2\n", Source(), b"epochs: 0\n")
    with pytest.raises(Overtaken):
        save(path, "epochs: 2\n", Source(), None)
    with pytest.raises(Overtaken):
        save(home / "gone.yaml", "epochs: 2\n", Source(), b"epochs: 1\n")
    assert path.read_bytes() == b"epochs: 1\n"


def test_a_place_that_takes_nothing_is_said_in_one_message(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileTrouble, match=r"no/a.yaml: not saved: there is no such folder"):
        save(home / "no" / "a.yaml", "x", Source(), None)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    (home / "a.yaml").write_bytes(b"old")
    monkeypatch.setattr(editor_files.os, "fsync", full)
    with pytest.raises(FileTrouble, match="there is no space left on the disk"):
        save(home / "a.yaml", "new", Source(), b"old")
    assert (home / "a.yaml").read_bytes() == b"old"
    assert os.listdir(home) == ["a.yaml"]


@pytest.mark.parametrize(
    ("raw", "said"),
    [(b"\xff", "not UTF-8"), (b"x" * 300_000, "too long"), ("a: 1\nb: \u2028\n".encode(), r":2: holds '\u2028'")],
)
def test_a_file_that_cannot_be_edited_says_why(home: Path, raw: bytes, said: str) -> None:
    (home / "a.yaml").write_bytes(raw)
    with pytest.raises(FileTrouble) as refused:
        read_source(home / "a.yaml")
    assert said in str(refused.value)


def test_a_saved_copy_is_private_and_listed_by_the_launchpad(home: Path) -> None:
    path = fresh_path(own_config_folder(), "demo")
    save(path, "epochs: 2\n", Source(), None)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [entry.path for entry in own_configs(home)] == [path]
    assert fresh_path(own_config_folder(), "demo").name == "demo-2.yaml"
    assert [folder for _, folder in saving_folders()] == [own_config_folder(), home]
    assert found_by_launchpad(home / "x.yaml")
    assert not found_by_launchpad(home / "x.yml")
    assert not found_by_launchpad(home.parent / "x.yaml")
    assert is_shipped(shipped("sample_configs") / "demo.yaml")


def test_a_draft_is_private_and_belongs_to_its_file(home: Path) -> None:
    keep_draft(home / "a.yaml", "epochs: 2 # ü\n", "epochs: 1\n")
    file = draft_file(home / "a.yaml")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    draft = find_draft(home / "a.yaml")
    assert draft is not None
    assert draft.text == "epochs: 2 # ü\n"
    assert draft.is_of("epochs: 1\n")
    assert not draft.is_of("epochs: 3\n")
    assert find_draft(home / "b.yaml") is None
    file.write_text("{torn")
    assert find_draft(home / "a.yaml") is None
    drop_draft(home / "a.yaml")
    assert not file.exists()

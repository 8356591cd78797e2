"""For every test of the app: folders of its own, so that what one remembers is not there in the next."""

from __future__ import annotations

from pathlib import Path

import pytest

from acrf_tui.screens import launchpad_examine
from acrf_tui.screens.launchpad_check import CheckResult


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("STATE", "CONFIG", "CACHE", "DATA"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    return tmp_path


@pytest.fixture
def here(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    folder = own_home / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def unexamined(monkeypatch: pytest.MonkeyPatch) -> None:
    """The launchpad starts no process that looks at the chosen config."""
    result = CheckResult(error="not looked at in this test")
    monkeypatch.setattr(launchpad_examine, "run_check", lambda *_: result)

"""Every screen looks as it did when it was last looked at: SVG snapshots, in every size and theme.

After a change that is meant: `pytest tests/tui/test_screens_look.py --snapshot-update`, then look at the files in
`tests/snapshots` that git calls changed, one by one.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from scenes import COLORLESS, SCENES, SIZES, THEMES, hold_the_clock, stands_still
from syrupy.assertion import SnapshotAssertion
from syrupy.extensions.single_file import SingleFileSnapshotExtension, WriteMode
from syrupy.location import PyTestLocation

from acrf_tui.screens import launchpad
from acrf_tui.screens.launchpad_check import CheckResult
from tests.tui.test_launchpad import REPORT

FOLDER = Path(__file__).parent.parent / "snapshots"


class Screens(SingleFileSnapshotExtension):
    """One SVG file for each scene, theme and size."""

    _write_mode = WriteMode.TEXT
    file_extension = "svg"

    @classmethod
    def dirname(cls, *, test_location: PyTestLocation) -> str:
        return str(FOLDER / test_location.basename)


@pytest.fixture(autouse=True)
def an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STATE", "CONFIG", "CACHE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launchpad, "run_check", lambda *_: CheckResult(report=REPORT))


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("name", SCENES)
async def test_looks(name: str, theme: str, snapshot: SnapshotAssertion, monkeypatch: pytest.MonkeyPatch) -> None:
    hold_the_clock(monkeypatch)
    if theme == COLORLESS:
        monkeypatch.setenv("NO_COLOR", "1")
    scene = SCENES[name]
    app = scene.app("acrf-ansi" if theme == COLORLESS else theme)
    app.animation_level = "none"
    async with app.run_test(size=SIZES[1]) as pilot:
        await scene.play(pilot)
        for width, height in SIZES:
            await pilot.resize_terminal(width, height)
            svg = await stands_still(pilot)
            assert svg == snapshot(name=f"{width}x{height}", extension_class=Screens)

"""Every screen looks as it did when it was last looked at: SVG snapshots, in every size and theme.

After a change that is meant: `pytest tests/tui/test_screens_look.py --snapshot-update`, then look at the files in
`tests/snapshots` that git calls changed, one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from scenes import SCENES, SIZES, THEMES, Scene, hold_the_clock, stands_still
from syrupy.assertion import SnapshotAssertion
from syrupy.extensions.single_file import SingleFileSnapshotExtension, WriteMode
from syrupy.location import PyTestLocation

from acrf_tui.screens import launchpad_examine
from acrf_tui.screens.launchpad_check import CheckResult
from acrf_tui.terminal import ANSI_THEME
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
    """In a home of its own: what is shown of a path begins with ~ and is the same on every machine."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "lora").mkdir()
    monkeypatch.chdir(tmp_path / "lora")
    monkeypatch.setattr(launchpad_examine, "run_check", lambda *_: CheckResult(report=REPORT))


async def looks(scene: Scene, themes: Sequence[str], snapshot: SnapshotAssertion) -> None:
    """Every size where colours blend; sixteen colours and none in the size where least has room."""
    app = scene.app(themes[0])
    app.animation_level = "none"
    async with app.run_test(size=SIZES[0]) as pilot:
        await scene.play(pilot)
        for theme in themes:
            app.theme = theme
            for width, height in SIZES if theme != ANSI_THEME else SIZES[:1]:
                await pilot.resize_terminal(width, height)
                svg = await stands_still(pilot)
                assert svg == snapshot(name=f"{theme}-{width}x{height}", extension_class=Screens)


@pytest.mark.parametrize("name", SCENES)
async def test_colours(name: str, snapshot: SnapshotAssertion, monkeypatch: pytest.MonkeyPatch) -> None:
    hold_the_clock(monkeypatch)
    await looks(SCENES[name], THEMES, snapshot)


@pytest.mark.parametrize("name", SCENES)
async def test_no_colours(name: str, snapshot: SnapshotAssertion, monkeypatch: pytest.MonkeyPatch) -> None:
    hold_the_clock(monkeypatch)
    monkeypatch.setenv("NO_COLOR", "1")
    await looks(SCENES[name], (ANSI_THEME,), snapshot)

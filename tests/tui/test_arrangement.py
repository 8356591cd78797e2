"""Panels can be hidden, the others take their room, and tomorrow it is all as it was left."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_run import FakeSource, make_history
from hypothesis import given
from hypothesis import strategies as st
from test_dashboard import dashboard, screen_text, settle, shows
from textual.pilot import Pilot

from acrf_tui.memory import remembered
from acrf_tui.screens.arrangement import Arrangement, from_memory, to_memory
from acrf_tui.screens.dashboard import DashboardScreen
from acrf_tui.screens.panels_dialog import PanelsDialog

PANELS = ("progress", "loss", "anchors", "gpu", "weight", "rate", "journal", "overview")
HIDDEN: tuple[list[str], ...] = (
    ["loss"],
    ["loss", "journal"],
    ["gpu"],
    ["gpu", "anchors"],
    ["weight", "rate"],
    ["weight", "rate", "anchors"],
    ["gpu", "anchors", "weight", "rate"],
    ["gpu", "anchors", "weight", "rate", "overview"],
    ["progress", "loss", "journal"],
    ["weight", "rate", "overview"],
    ["gpu", "anchors", "overview"],
)
SIZES = ((60, 20), (80, 24), (120, 40), (200, 50))
BETWEEN = ((80, 40), (120, 24), (120, 30), (200, 40))


@pytest.fixture(autouse=True)
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A memory of its own for every test."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "acrf-tui" / "app.json"


@given(st.sets(st.sampled_from(PANELS)), st.lists(st.sampled_from(PANELS)))
def test_whatever_is_pressed_something_stays_to_be_seen(hidden: set[str], presses: list[str]) -> None:
    arrangement = from_memory(PANELS, {"hidden": list(hidden)})
    for panel in presses:
        arrangement = arrangement.toggled(panel)
        assert arrangement.shown
    assert from_memory(PANELS, json.loads(json.dumps(to_memory(arrangement)))) == arrangement


@pytest.mark.parametrize(
    "found",
    [None, 3, "gpu", [], {"hidden": None}, {"hidden": "gpu"}, {"hidden": [3, {}, ["gpu"]]}, {"hidden": list(PANELS)}],
)
def test_a_memory_that_makes_no_sense_hides_nothing(found: object) -> None:
    assert from_memory(PANELS, found) == Arrangement(PANELS)


def seen(screen: DashboardScreen) -> set[str]:
    return {panel.id or "" for panel in screen.panels if panel.region.area and panel.is_on_screen}


def said(pilot: Pilot, text: str) -> bool:
    return any(text in one.message for one in pilot.app._notifications)


async def test_a_hidden_panel_is_still_hidden_tomorrow_and_comes_back() -> None:
    async with dashboard(FakeSource(make_history(100))) as (pilot, screen):
        before = screen.query_one("#weight").region.height
        await pilot.press("3", "h")
        await settle(pilot, lambda: "anchors" not in seen(screen))
        assert said(pilot, "hidden: 3 shows it, p brings it back")
        await settle(pilot, lambda: screen.query_one("#weight").region.height > before)
        assert screen.focused in screen.panels
    async with dashboard(FakeSource(make_history(30), "another-run")) as (pilot, screen):
        assert seen(screen) == set(PANELS) - {"anchors", "overview"}
        await pilot.press("3")
        await settle(pilot, lambda: screen.maximized is screen.query_one("#anchors"))
        await shows(pilot, "hidden: h brings it back", "1.000")
        await pilot.press("h")
        await settle(pilot, lambda: "anchors" in seen(screen) and screen.maximized is None)
    assert remembered()["panels"] == {"hidden": []}


async def test_z_leaves_a_hidden_panel_hidden() -> None:
    async with dashboard(FakeSource(make_history(100))) as (pilot, screen):
        await pilot.press("7", "h")
        await settle(pilot, lambda: "journal" not in seen(screen))
        await pilot.press("7")
        await settle(pilot, lambda: screen.maximized is not None)
        await pilot.press("z")
        await settle(pilot, lambda: screen.maximized is None and "journal" not in seen(screen))
        await settle(pilot, lambda: screen.focused_panel() is screen.loss)


async def test_the_last_panel_cannot_be_hidden(memory: Path) -> None:
    memory.parent.mkdir(parents=True)
    memory.write_text(json.dumps({"panels": {"hidden": [panel for panel in PANELS if panel != "rate"]}}))
    async with dashboard(FakeSource(make_history(100))) as (pilot, screen):
        assert seen(screen) == {"rate"}
        assert screen.query_one("#rate").region.width == 120
        await settle(pilot, lambda: screen.focused_panel() is screen.query_one("#rate"))
        await pilot.press("h")
        await settle(pilot, lambda: said(pilot, "the last panel stays"))
        assert seen(screen) == {"rate"}


async def test_a_memory_that_cannot_be_read_or_written_costs_nothing(memory: Path) -> None:
    memory.mkdir(parents=True)  # a folder where the file should be
    async with dashboard(FakeSource(make_history(100))) as (pilot, screen):
        assert "anchors" in seen(screen)
        await pilot.press("3", "h")
        await settle(pilot, lambda: "anchors" not in seen(screen))


async def test_p_lists_the_panels_and_enter_keeps_what_was_chosen() -> None:
    async with dashboard(FakeSource(make_history(100))) as (pilot, screen):
        await pilot.press("p")
        await settle(pilot, lambda: isinstance(pilot.app.screen, PanelsDialog))
        await shows(pilot, "Run overview", "no room here: 8 opens it")
        await pilot.press("down", "down", "space", "7")
        await shows(pilot, "hidden: 3 opens it", "hidden: 7 opens it", "2 of 8 hidden")
        await pilot.press("enter")
        await settle(pilot, lambda: seen(screen) == set(PANELS) - {"anchors", "journal", "overview"})
        await pilot.press("p", "r", "enter")
        await settle(pilot, lambda: seen(screen) == set(PANELS) - {"overview"})


async def test_escape_leaves_the_panels_as_they_were() -> None:
    async with dashboard(FakeSource(make_history(100))) as (pilot, screen):
        await pilot.press("p", "1", "2", "3", "escape")
        await settle(pilot, lambda: pilot.app.screen is screen)
        assert seen(screen) == set(PANELS) - {"overview"}


async def test_in_the_list_the_last_panel_stays() -> None:
    async with dashboard(FakeSource(make_history(100))) as (pilot, screen):
        await pilot.press("p", *"12345678")
        await shows(pilot, "one panel stays")
        await pilot.press("enter")
        await settle(pilot, lambda: screen.maximized is screen.query_one("#overview"))  # it has no place at this size


@pytest.mark.parametrize("size", [*SIZES, *(pytest.param(size, marks=pytest.mark.full_only) for size in BETWEEN)])
async def test_those_that_remain_take_the_room(size: tuple[int, int]) -> None:
    width, height = size
    async with dashboard(FakeSource(make_history(100)), size) as (pilot, screen):
        for hidden in HIDDEN:
            screen.take_arrangement(Arrangement(PANELS, frozenset(hidden)))
            await pilot.pause(0.1)
            await settle(pilot, lambda: bool(seen(screen)))
            assert not seen(screen) & set(hidden)
            covered = {
                (x, y)
                for panel in screen.panels
                if panel.id in seen(screen)
                for y in range(panel.region.y, panel.region.bottom)
                for x in range(panel.region.x, panel.region.right)
            }
            body = width * (height - 2)  # without header and keys
            enough = 0.92 if width >= 76 else 0.3
            assert len(covered) >= enough * body, f"without {hidden}:\n{screen_text(pilot.app)}"


async def test_a_panel_without_a_place_is_maximised_only_as_long_as_it_has_none(memory: Path) -> None:
    memory.parent.mkdir(parents=True)
    memory.write_text(json.dumps({"panels": {"hidden": [panel for panel in PANELS if panel != "overview"]}}))
    async with dashboard(FakeSource(make_history(100)), (120, 40)) as (pilot, screen):
        await settle(pilot, lambda: screen.maximized is screen.query_one("#overview"))
        await shows(pilot, "136 modules")
        await pilot.resize_terminal(50, 15)
        await shows(pilot, "too small")
        await pilot.resize_terminal(200, 50)
        await settle(pilot, lambda: screen.maximized is None and seen(screen) == {"overview"})

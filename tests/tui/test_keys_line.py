"""The keys line: the way out always fits, and what can be pressed now comes first and says what it does."""

from __future__ import annotations

import pytest
from fake_run import FakeSource, make_history
from test_dashboard import dashboard, screen_text, settle
from textual.pilot import Pilot

from acrf_tui.panels.keys import KeysLine
from acrf_tui.panels.rate import RatePanel
from acrf_tui.screens.dashboard import DashboardScreen


def keys_of(screen: DashboardScreen) -> str:
    return "".join(text for text, _ in screen.query_one(KeysLine).lines[0]).strip()


async def says(pilot: Pilot, screen: DashboardScreen, begin: str, *inside: str) -> None:
    def holds() -> bool:
        keys = " ".join(keys_of(screen).split())
        return keys.startswith(begin) and all(text in keys for text in inside)

    await settle(pilot, holds)


@pytest.mark.parametrize("size", [(60, 20), (80, 24), (120, 40)])
@pytest.mark.parametrize("pressed", ["x", "space", "z"])
async def test_leave_and_help_are_there_at_every_size(size: tuple[int, int], pressed: str) -> None:
    async with dashboard(FakeSource(make_history(100)), size) as (pilot, screen):
        before = keys_of(screen)
        await pilot.press(pressed)
        await settle(pilot, lambda: keys_of(screen) != before)
        keys = keys_of(screen)
        assert "q Leave" in keys
        assert "? Help" in keys
        assert len(keys) <= size[0]


async def test_while_a_step_is_read_the_line_begins_with_what_moves_and_ends_it() -> None:
    async with dashboard(FakeSource(make_history(100))) as (pilot, screen):
        await says(pilot, screen, "space Pause")
        await pilot.press("x")
        await says(pilot, screen, "← Earlier → Later esc No crosshair")
        await pilot.press("escape")
        await says(pilot, screen, "space Pause")
        await pilot.press("plus", "left")
        await says(pilot, screen, "← Earlier → Later end Follow")
        await pilot.press("end")
        await says(pilot, screen, "space Pause")


async def test_zoom_and_freeze_say_how_they_end() -> None:
    async with dashboard(FakeSource(make_history(100))) as (pilot, screen):
        await pilot.press("f")
        await says(pilot, screen, "space Pause", "f Unfreeze", "z Zoom")
        await pilot.press("f", "z")
        await says(pilot, screen, "x Crosshair + Zoom in - Zoom out g Log scale", "f Freeze", "z Restore")
        await pilot.press("z")
        await says(pilot, screen, "space Pause", "z Zoom")


async def test_the_filter_says_how_it_is_kept_and_how_it_goes() -> None:
    async with dashboard(FakeSource(make_history(300))) as (pilot, screen):
        await pilot.press("slash")
        await says(pilot, screen, "enter Keep esc All entries")
        await pilot.press("c", "h", "e", "enter")
        await says(pilot, screen, "esc All entries space Pause")
        await pilot.press("escape")
        await says(pilot, screen, "space Pause")


async def test_the_rates_have_axes_when_there_is_room_and_say_where_the_clip_level_is() -> None:
    source = FakeSource(make_history(100))
    for number, norm in enumerate(source._history.steps.grad_norm):
        source._history.steps.grad_norm[number] = norm / 100
    async with dashboard(source) as (pilot, screen):
        rate = screen.query_one(RatePanel)
        await settle(pilot, lambda: "clip 1 above" in screen_text(pilot.app))
        assert not rate.rate_chart.y_axis.size.width
        await pilot.press("6", "z")
        await settle(pilot, lambda: "1e-4 ┤" in screen_text(pilot.app) and "0.010 ┤" in screen_text(pilot.app))
        assert "".join(text for text, _ in rate.norm_chart.x_axis.lines[-1]).rstrip().endswith("step")
        await pilot.press("z")
        await settle(pilot, lambda: "1e-4 ┤" not in screen_text(pilot.app))

"""Jump mode: a letter over every place, and one key to be there."""

from __future__ import annotations

from typing import Any

from fake_run import FakeSource, make_history
from hypothesis import given
from hypothesis import strategies as st
from test_dashboard import dashboard, screen_text, settle, shows

from acrf_tui.screens.jump import JumpLabel, letters_for, visible_part


@given(st.lists(st.sampled_from(["", "1", "2", "a", "9"]), max_size=60))
def test_no_key_leads_to_two_places(wanted: list[str]) -> None:
    letters = letters_for(wanted)
    given_out = [letter for letter in letters if letter]
    assert len(letters) == len(wanted)
    assert len(set(given_out)) == len(given_out)
    assert all(letters[at] == key for at, key in enumerate(wanted) if key and key not in wanted[:at])
    assert len(wanted) > 20 or all(letters)


async def test_j_labels_every_panel_and_a_key_goes_there() -> None:
    async with dashboard(FakeSource(make_history(100))) as (pilot, screen):
        await pilot.press("j")
        labels = list(screen.query(JumpLabel))
        assert {label.letter for label in labels} == set("1234567")
        await settle(pilot, lambda: all(label.region.area for label in labels))
        for label in labels:
            assert visible_part(label.target).contains_region(label.region)
        await pilot.press("6")
        await settle(pilot, lambda: screen.focused is screen.query_one("#rate") and not screen.query(JumpLabel))


async def test_escape_or_any_other_key_leaves_all_as_it_was() -> None:
    source = FakeSource(make_history(100))
    async with dashboard(source) as (pilot, screen):
        await pilot.press("3")
        for key in ("escape", "space", "j"):
            await pilot.press("j", key)
            await settle(pilot, lambda: not screen.query(JumpLabel))
            assert screen.focused is screen.query_one("#anchors")
        assert not source.sent


async def test_a_click_ends_it_and_counts() -> None:
    async with dashboard(FakeSource(make_history(100))) as (pilot, screen):
        await pilot.press("j")
        await pilot.click("#weight", offset=(5, 3))
        await settle(pilot, lambda: not screen.query(JumpLabel) and screen.focused is screen.query_one("#weight"))


async def test_in_a_field_letters_are_text_and_ctrl_o_jumps() -> None:
    async with dashboard(FakeSource(make_history(100))) as (pilot, screen):
        await pilot.press("slash", *"jo")
        await settle(pilot, lambda: screen.query_one("#journal-filter").value == "jo")
        await pilot.press("ctrl+o")
        assert {label.letter for label in screen.query(JumpLabel)} == {*"1234567", "a"}
        await pilot.press("2")
        await settle(pilot, lambda: screen.focused is screen.loss)
        assert screen.query_one("#journal-filter").value == "jo"


async def test_the_letters_cost_no_full_repaint() -> None:
    async with dashboard(FakeSource(make_history(100))) as (pilot, screen):
        await pilot.press("7", "f")
        await pilot.pause(0.6)
        painted = []
        display = pilot.app._display

        def spy(shown: Any, update: Any) -> None:
            if update is not None:
                cells = sum(end - start for _, start, end in update.spans) if hasattr(update, "spans") else 10**6
                painted.append(cells)
            display(shown, update)

        pilot.app._display = spy
        await pilot.press("j")
        await settle(pilot, lambda: bool(screen.query(JumpLabel)))
        await pilot.press("escape")
        await settle(pilot, lambda: not screen.query(JumpLabel))
        await pilot.pause(0.2)
        assert 0 < sum(painted) < 0.6 * 120 * 40


async def test_where_there_is_nothing_to_choose_nothing_is_shown() -> None:
    async with dashboard(FakeSource(make_history(100))) as (pilot, screen):
        await pilot.press("z", "j")
        await pilot.pause(0.1)
        assert not screen.query(JumpLabel)
        await shows(pilot, "balanced")
        assert "RUNNING" in screen_text(pilot.app)

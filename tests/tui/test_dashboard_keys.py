"""Every key of the dashboard does what its tooltip says."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from fake_run import FakeSource, make_history, make_step
from test_dashboard import dashboard, screen_text, settle, shows
from textual.binding import Binding
from textual.pilot import Pilot
from textual.screen import Screen
from textual.widgets import Button, Input

from acrf_engine.protocol import Ack, Failed, StateChanged
from acrf_tui.panels.panel import Panel
from acrf_tui.screens.dashboard import DashboardScreen
from acrf_tui.screens.dialogs import HelpDialog, LeaveDialog, RateDialog, parse_rate, schedule_effect
from acrf_tui.screens.tweak import TweakDialog


async def opens(pilot: Pilot, key: str, dialog: type[Screen]) -> None:
    await pilot.press(key)
    await settle(pilot, lambda: isinstance(pilot.app.screen, dialog))


async def test_space_pauses_and_resumes_and_the_journal_shows_the_answer() -> None:
    source = FakeSource(make_history(100))
    async with dashboard(source) as (pilot, screen):
        await pilot.press("space")
        await settle(pilot, lambda: screen.run_state.state == "paused")
        await pilot.press("space")
        await settle(pilot, lambda: screen.run_state.state == "running")
        assert [name for name, _ in source.sent] == ["pause", "resume"]
        assert [entry.kind for entry in screen.run_state.journal].count("done") == 2


@pytest.mark.parametrize(("key", "command"), [("c", "checkpoint"), ("s", "preview")])
async def test_a_command_key_sends_its_command(key: str, command: str) -> None:
    source = FakeSource(make_history(100))
    async with dashboard(source) as (pilot, _):
        await pilot.press(key)
        await settle(pilot, lambda: (command, {}) in source.sent)
        await shows(pilot, f"✓ {command}")


async def test_l_halves_the_learning_rate() -> None:
    source = FakeSource(make_history(100))
    async with dashboard(source) as (pilot, screen):
        await opens(pilot, "l", RateDialog)
        assert pilot.app.screen.query_one(Input).value == "0.0001"
        await pilot.click("#rate-half")
        await pilot.press("enter")
        await settle(pilot, lambda: bool(source.sent))
        assert source.sent == [("set", {"key": "learning_rate", "value": 5e-5})]
        await shows(pilot, "set learning_rate 0.0001 → 5e-05")
        assert screen.run_state.base_rate == 5e-5


async def test_l_can_ramp_to_the_new_rate() -> None:
    source = FakeSource(make_history(100))
    async with dashboard(source) as (pilot, _):
        await opens(pilot, "l", RateDialog)
        await pilot.click("#rate-half")
        pilot.app.screen.query_one("#rate-ramp", Input).value = "50"
        await shows(pilot, "over the next 50 steps")
        await pilot.press("enter")
        await settle(pilot, lambda: bool(source.sent))
        assert source.sent == [("set", {"key": "learning_rate", "value": 5e-5, "ramp": 50})]


async def test_t_sets_what_was_changed_and_nothing_else() -> None:
    source = FakeSource(make_history(100))
    async with dashboard(source) as (pilot, screen):
        await opens(pilot, "t", TweakDialog)
        dialog = pilot.app.screen
        assert [field.value for field in dialog.query(Input)] == ["1", "0.1", "0.1", "5", "0.02", "1"]
        assert dialog.query_one("#tweak-set", Button).disabled
        await pilot.press("down", "down", *"0.25", "down", *"nan")
        assert dialog.query_one("#tweak-set", Button).disabled
        await pilot.press("enter")
        assert pilot.app.screen is dialog
        await pilot.press(*["backspace"] * 3, "3", "enter")
        await settle(pilot, lambda: len(source.sent) == 2)
        assert sorted((args["key"], args["value"]) for _, args in source.sent) == [
            ("loss.lambda_fft", 0.25), ("snr_gamma", 3.0),
        ]  # fmt: skip
        await settle(pilot, lambda: screen.run_state.settings.get("snr_gamma") == 3.0)
        await opens(pilot, "t", TweakDialog)
        assert pilot.app.screen.query_one("#tweak-3", Input).value == "3"


async def test_v_gives_the_vram_back_while_paused_and_takes_it_again() -> None:
    source = FakeSource(make_history(100))
    async with dashboard(source) as (pilot, screen):
        await pilot.press("v")  # running: not offered
        await pilot.press("space")
        await settle(pilot, lambda: screen.run_state.state == "paused")
        await pilot.press("v")
        await shows(pilot, "VRAM FREE")
        assert not screen.check_action("command", ("preview",))
        assert "Reload" in {one.binding.description for one in screen.active_bindings.values()}
        await pilot.press("v")
        await settle(pilot, lambda: not screen.run_state.parked)
        assert [name for name, _ in source.sent] == ["pause", "free-vram", "reload"]


async def test_a_run_that_waits_for_a_device_says_for_which_and_can_be_started_now() -> None:
    source = FakeSource(make_history(0))
    async with dashboard(source) as (pilot, screen):
        source.push(StateChanged("starting", 0, 40, "waiting for GPU 0: night uses it", waiting=True))
        await shows(pilot, "WAITING")
        await shows(pilot, "waiting for GPU 0: night uses it")
        await shows(pilot, "the run waits for its turn")
        assert "Start now" in {one.binding.description for one in screen.active_bindings.values()}
        await opens(pilot, "q", LeaveDialog)
        await shows(pilot, "it stays in the line")
        await pilot.press("escape")
        await pilot.press("space")
        await settle(pilot, lambda: bool(source.sent))
        assert source.sent == [("resume", {})]


async def test_a_learning_rate_that_is_none_is_not_sent() -> None:
    source = FakeSource(make_history(100))
    async with dashboard(source) as (pilot, _):
        await opens(pilot, "l", RateDialog)
        dialog = pilot.app.screen
        dialog.query_one(Input).value = "fast"
        await pilot.pause()
        assert dialog.query_one("#rate-set", Button).disabled
        await pilot.press("enter")
        await pilot.pause()
        assert pilot.app.screen is dialog
        await pilot.press("escape")
        await pilot.pause()
        assert not source.sent


def test_rates_are_validated_and_explained() -> None:
    assert parse_rate("5e-5") == (5e-5, "")
    assert parse_rate(" 0,0001 ") == (1e-4, "")
    for wrong in ("", "nan", "inf", "-1", "0", "7"):
        assert parse_rate(wrong)[0] is None
        assert parse_rate(wrong)[1]
    assert "73%" in schedule_effect(5e-5, 1e-4, 7.3e-5, "cosine")
    assert "3.65e-05" in schedule_effect(5e-5, 1e-4, 7.3e-5, "cosine")


async def test_a_refused_command_is_a_toast_and_a_journal_line() -> None:
    source = FakeSource(make_history(100))

    def refuse(name: str, args: dict) -> Ack:
        ack = Ack("c1", name, False, 101, "previews are not supported by this model")
        source.push(ack)
        return ack

    source.answer = refuse
    async with dashboard(source) as (pilot, screen):
        await pilot.press("s")
        await shows(pilot, "✗ preview refused")
        assert [n.severity for n in pilot.app._notifications] == ["warning"]
        await settle(pilot, lambda: not screen.check_action("command", ("preview",)))
        assert screen.check_action("command", ("checkpoint",))


async def test_a_command_that_cannot_be_delivered_is_a_toast_and_a_journal_line() -> None:
    source = FakeSource(make_history(100))

    def lost(name: str, args: dict) -> Ack:
        raise ConnectionError("the supervisor does not answer")

    source.answer = lost
    async with dashboard(source) as (pilot, _):
        await pilot.press("c")
        await shows(pilot, "checkpoint was not delivered: the supervisor does")
        assert [n.severity for n in pilot.app._notifications] == ["error"]


async def test_z_maximises_the_focused_panel_and_restores_it() -> None:
    async with dashboard(FakeSource(make_history(100))) as (pilot, screen):
        await pilot.press("3", "z")
        await pilot.pause(0.2)
        assert screen.maximized is screen.query_one("#anchors")
        assert screen.query_one("#anchors").region.width == 120
        assert screen.query_one("#header").region.y == 0
        await shows(pilot, "RUNNING", "mean loss")
        await pilot.press("z")
        await pilot.pause(0.2)
        assert screen.maximized is None


async def test_digits_and_tab_reach_every_panel() -> None:
    async with dashboard(FakeSource(make_history(100)), (200, 50)) as (pilot, screen):
        for number, panel in enumerate(screen.panels, start=1):
            await pilot.press(str(number))
            assert screen.focused is panel
            assert number == panel.NUMBER
        seen = set()
        for _ in range(8):
            await pilot.press("tab")
            seen.add(screen.focused)
        assert seen == set(screen.panels)


async def test_a_digit_opens_a_panel_that_has_no_room() -> None:
    async with dashboard(FakeSource(make_history(100)), (80, 24)) as (pilot, screen):
        await pilot.press("7")
        await pilot.pause(0.2)
        assert screen.maximized is screen.query_one("#journal")
        await shows(pilot, "running")
        await pilot.press("2")
        await pilot.pause(0.2)
        assert screen.maximized is screen.loss


async def test_f_holds_the_view_still_while_state_goes_on() -> None:
    source = FakeSource(make_history(100))
    async with dashboard(source) as (pilot, screen):
        await pilot.press("f")
        await shows(pilot, "FROZEN", "100 / 4,000")
        source.push(make_step(101))
        await settle(pilot, lambda: screen.run_state.step == 101)
        await pilot.pause(0.6)
        assert "100 / 4,000" in screen_text(pilot.app)
        await pilot.press("f")
        await shows(pilot, "101 / 4,000")


async def test_loss_keys_switch_series_and_scale() -> None:
    async with dashboard(FakeSource(make_history(100))) as (pilot, screen):
        await pilot.press("C", "O", "F")
        await pilot.pause()
        assert {"loss_char", "loss_cos", "loss_fft"} <= screen.loss.chart.visible_keys
        await shows(pilot, "Char 0.", "FFT 0.")
        await pilot.press("R", "B")
        assert not {"loss", "loss_balanced"} & screen.loss.chart.visible_keys
        await pilot.press("g")
        assert screen.loss.chart.log_scale
        await shows(pilot, "log")


async def test_plus_and_minus_show_fewer_and_more_steps() -> None:
    source = FakeSource(make_history(300))
    async with dashboard(source) as (pilot, screen):
        await pilot.press("plus", "plus")
        await shows(pilot, "linear, zoom 4 ×")
        assert screen.loss.chart._columns["loss"].x0 > 0
        source.push(make_step(301))
        await settle(pilot, lambda: screen.loss.chart._columns["loss"].consumed == 301)
        await pilot.press("minus", "minus", "minus")
        await pilot.pause(0.1)
        assert screen.loss.chart._columns["loss"].x0 == 0


async def test_a_click_on_the_legend_switches_a_series() -> None:
    async with dashboard(FakeSource(make_history(100))) as (pilot, screen):
        await pilot.pause(0.6)
        await pilot.click("#loss-legend", offset=(3, 0))
        assert "loss_balanced" not in screen.loss.chart.visible_keys


async def test_help_lists_the_live_bindings() -> None:
    async with dashboard(FakeSource(make_history(100)), (120, 100)) as (pilot, _):
        await opens(pilot, "question_mark", HelpDialog)
        text = screen_text(pilot.app)
        for part in ("Pause or resume training", "Change the learning rate", "Go to the journal panel", "Next panel"):
            assert part in text
        await opens(pilot, "escape", DashboardScreen)


async def test_the_command_palette_opens() -> None:
    async with dashboard(FakeSource(make_history(100))) as (pilot, _):
        await pilot.press("ctrl+p")
        await settle(pilot, lambda: type(pilot.app.screen).__name__ == "CommandPalette")
        await pilot.press("escape")


async def test_q_then_detach_leaves_the_training_alone() -> None:
    source = FakeSource(make_history(100))
    async with dashboard(source) as (pilot, screen):
        await opens(pilot, "q", LeaveDialog)
        await pilot.press("d")
        await settle(pilot, lambda: pilot.app.return_value == "detach")
        assert not source.sent
        assert screen._feed._stop.is_set()


async def test_q_then_cancel_stays() -> None:
    async with dashboard(FakeSource(make_history(100))) as (pilot, screen):
        await opens(pilot, "q", LeaveDialog)
        await pilot.press("escape")
        await settle(pilot, lambda: pilot.app.screen is screen)
        assert pilot.app.return_value is None


async def test_q_then_stop_waits_for_the_checkpoint() -> None:
    source = FakeSource(make_history(100))
    saved = threading.Event()

    def slowly(name: str, args: dict) -> Ack:
        source.push(StateChanged("stopping", 100, 4000))
        saved.wait(5)
        return Ack("c1", name, True, 100)

    source.answer = slowly
    async with dashboard(source) as (pilot, _):
        await opens(pilot, "q", LeaveDialog)
        await pilot.press("s")
        await shows(pilot, "STOPPING")
        assert pilot.app.return_value is None
        saved.set()
        await settle(pilot, lambda: pilot.app.return_value == "stopped")


async def test_q_closes_an_ended_run_at_once() -> None:
    source = FakeSource(make_history(100))
    async with dashboard(source) as (pilot, screen):
        source.push(Failed(100, "killed", "interrupted"))
        await settle(pilot, lambda: screen.run_state.ended)
        await pilot.press("q")
        await settle(pilot, lambda: pilot.app.return_value == "closed")


async def test_an_observer_sends_nothing() -> None:
    source = FakeSource(make_history(100))
    source.read_only = True
    async with dashboard(source) as (pilot, screen):
        await shows(pilot, "OBSERVING")
        await pilot.press("space", "c", "s", "l")
        await pilot.pause(0.2)
        assert not source.sent
        assert pilot.app.screen is screen
        await opens(pilot, "q", LeaveDialog)
        await pilot.press("s")
        await pilot.pause(0.2)
        assert not source.sent


async def test_a_supervisor_of_another_version_can_only_be_watched() -> None:
    source = FakeSource(make_history(100))
    source.skew = "run portrait is supervised by acrf-tui 9.0: it can be watched, but not steered from here"
    async with dashboard(source) as (pilot, screen):
        source.push(make_step(101))
        await shows(pilot, "OBSERVING")
        assert any("supervised by acrf-tui 9.0" in entry.text for entry in screen.run_state.journal)
        await pilot.press("space", "c")
        assert screen.run_state.step == 101
        assert not source.sent


async def test_commands_are_not_offered_before_the_first_step() -> None:
    async with dashboard(FakeSource(make_history(0))) as (pilot, screen):
        await pilot.press("space", "c", "s", "l")
        await pilot.pause(0.2)
        assert not screen.source.sent


async def test_the_journal_scrolls_back() -> None:
    source = FakeSource(make_history(100))
    async with dashboard(source) as (pilot, screen):
        for number in range(40):
            screen.run_state.note("note", f"entry number {number}", 1.0)
        await shows(pilot, "entry number 39")
        await pilot.press("7", "pageup", "pageup", "up")
        await shows(pilot, "entry number 12")
        assert "entry number 39" not in screen_text(pilot.app)
        await pilot.press("pagedown", "pagedown", "pagedown")
        await shows(pilot, "entry number 39")


async def test_slash_filters_the_journal_and_escape_shows_all_again() -> None:
    source = FakeSource(make_history(100))
    async with dashboard(source) as (pilot, screen):
        for number in range(20):
            screen.run_state.note("warning" if number % 5 == 0 else "note", f"entry number {number}", 1.0)
        await shows(pilot, "entry number 19")
        await pilot.press("slash", *"WARN numb")
        await shows(pilot, "entry number 15")
        await settle(pilot, lambda: "entry number 19" not in screen_text(pilot.app))
        await pilot.press("enter")
        await pilot.press("space")  # the keys of the dashboard work again
        await settle(pilot, lambda: ("pause", {}) in source.sent)
        await pilot.press("escape")
        await shows(pilot, "entry number 19")


async def test_the_journal_opens_for_its_filter_where_it_has_no_room() -> None:
    source = FakeSource(make_history(100))
    async with dashboard(source, size=(80, 24)) as (pilot, screen):
        screen.run_state.note("note", "something to find", 1.0)
        await pilot.press("slash", *"find")
        await shows(pilot, "something to find")
        await pilot.press(*"ing else")
        await shows(pilot, "has these words")


def test_every_key_can_be_remapped_and_explains_itself() -> None:
    bindings = [one for one in DashboardScreen.BINDINGS if isinstance(one, Binding)]
    assert len({one.id for one in bindings}) == len(bindings)
    assert all(one.id and one.tooltip and one.description for one in bindings)
    assert len({one.key for one in bindings}) == len(bindings)


async def test_a_remapped_key_works_and_is_shown() -> None:
    source = FakeSource(make_history(100))
    async with dashboard(source) as (pilot, screen):
        pilot.app.set_keymap({"run.pause": "p"})
        await pilot.press("p")
        await settle(pilot, lambda: screen.run_state.state == "paused")


async def test_keys_in_the_footer_name_what_they_do() -> None:
    async with dashboard(FakeSource(make_history(100))) as (_, screen):
        shown = {one.binding.description for one in screen.active_bindings.values() if one.binding.show}
        assert {"Pause", "Save", "Preview", "LR", "Zoom", "Freeze", "Leave", "Help"} <= shown
        screen.run_state.state = "paused"
        assert "Resume" in {one.binding.description for one in screen.active_bindings.values()}
        assert all(isinstance(panel, Panel) for panel in screen.panels)
        assert replace(Binding("a", "b"), description="c").description == "c"

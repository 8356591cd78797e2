"""Every key of the dashboard is pressed here, and does what its tooltip says. A new binding needs a line in EFFECTS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from fake_run import FakeSource, make_history
from test_dashboard import dashboard, settle
from textual.binding import Binding

from acrf_engine.protocol import StateChanged
from acrf_tui.app import AcrfApp
from acrf_tui.panels.journal import JournalPanel
from acrf_tui.screens.dashboard import DashboardScreen
from acrf_tui.screens.dialogs import HelpDialog, LeaveDialog, RateDialog
from acrf_tui.screens.jump import JumpLabel
from acrf_tui.screens.log import LogScreen
from acrf_tui.screens.panels_dialog import PanelsDialog
from acrf_tui.screens.theme_dialog import ThemeDialog
from acrf_tui.screens.tweak import TweakDialog
from acrf_tui.settings import screenshots_folder

Seen = Callable[[DashboardScreen, FakeSource], bool]


@dataclass
class Effect:
    """`before` is pressed first; `done` says that the key had its effect, and must not hold before it is pressed."""

    done: Seen
    before: list[str] = field(default_factory=list)


def sent(command: str) -> Effect:
    return Effect(lambda _, source: command in [name for name, _ in source.sent])


def opens(dialog: type) -> Effect:
    return Effect(lambda screen, _: isinstance(screen.app.screen, dialog))


def series(key: str) -> Effect:
    switched = key not in ("loss", "loss_balanced", "validation")  # which are shown from the start
    return Effect(lambda screen, _: (key in screen.loss.chart.visible_keys) is switched)


def focuses(panel: str) -> Effect:
    return Effect(
        lambda screen, _: screen.focused is screen.query_one(f"#{panel}"), ["1" if panel != "progress" else "2"]
    )


def all_entries_are_shown(screen: DashboardScreen, _: FakeSource) -> bool:
    field = screen.query_one("#journal-filter")
    return not field.value and not field.display


def journal_is_back(lines: int) -> Seen:
    return lambda screen, _: screen.query_one(JournalPanel)._back == lines


def reads(screen: DashboardScreen, _: FakeSource) -> bool:
    return screen.loss.view.cross is not None


def window_begins_before(step: float) -> Seen:
    return lambda screen, _: screen.loss.view.window()[0] < step


def window_begins_after(step: float) -> Seen:
    return lambda screen, _: screen.loss.view.window()[0] > step


EFFECTS: dict[str, Effect] = {
    "run.pause": sent("pause"),
    "run.checkpoint": sent("checkpoint"),
    "run.preview": sent("preview"),
    "run.learning-rate": opens(RateDialog),
    "run.tweak": opens(TweakDialog),
    "run.vram": Effect(sent("free-vram").done, ["space"]),
    "view.zoom": Effect(lambda screen, _: screen.maximized is screen.loss),
    "view.restore": Effect(lambda screen, _: screen.maximized is None, ["z"]),
    "view.freeze": Effect(lambda screen, _: screen.frozen),
    "view.log": opens(LogScreen),
    "view.panels": opens(PanelsDialog),
    "view.hide": Effect(lambda screen, _: "loss" in screen.arrangement.hidden),
    "app.leave": opens(LeaveDialog),
    "app.help": opens(HelpDialog),
    "app.copy": Effect(lambda screen, _: bool(screen.app.clipboard)),
    "app.picture": Effect(lambda screen, _: any(screenshots_folder(screen.app.settings).glob("*.svg"))),
    "app.theme": opens(ThemeDialog),
    "app.jump": Effect(lambda screen, _: bool(screen.query(JumpLabel))),
    "loss.log": Effect(lambda screen, _: screen.loss.chart.log_scale),
    "loss.zoom-in": Effect(lambda screen, _: screen.loss.view.zoom == 1),
    "loss.zoom-out": Effect(lambda screen, _: screen.loss.view.zoom == 1, ["plus", "plus"]),
    "loss.balanced": series("loss_balanced"),
    "loss.raw": series("loss"),
    "loss.char": series("loss_char"),
    "loss.cos": series("loss_cos"),
    "loss.fft": series("loss_fft"),
    "loss.validation": series("validation"),
    "chart.crosshair": Effect(reads),
    "chart.no-crosshair": Effect(lambda screen, source: not reads(screen, source), ["x"]),
    "chart.earlier": Effect(window_begins_before(60), ["plus"]),
    "chart.later": Effect(window_begins_after(4), ["plus", "plus", "home"]),
    "chart.far-earlier": Effect(window_begins_before(40), ["plus"]),
    "chart.far-later": Effect(window_begins_after(20), ["plus", "plus", "home"]),
    "chart.first": Effect(window_begins_before(1), ["plus", "plus"]),
    "chart.follow": Effect(lambda screen, _: screen.loss.view.follows, ["plus", "left"]),
    "journal.filter": Effect(lambda screen, _: screen.focused is screen.query_one("#journal-filter")),
    "journal.older": Effect(journal_is_back(1), ["7"]),
    "journal.newer": Effect(journal_is_back(9), ["7", "pageup"]),
    "journal.page-older": Effect(journal_is_back(10), ["7"]),
    "journal.page-newer": Effect(journal_is_back(0), ["7", "pageup"]),
    "journal.all": Effect(all_entries_are_shown, ["slash", "n", "enter"]),
    **{
        f"view.panel-{number}": focuses(panel)
        for number, panel in enumerate(
            ("progress", "loss", "anchors", "gpu", "weight", "rate", "journal", "overview"), start=1
        )
    },
}  # fmt: skip


def bindings() -> list[Binding]:
    """All bindings of the dashboard, its panels and the app that have an id."""
    panels = dict.fromkeys(place for panel in DashboardScreen(FakeSource()).panels for place in type(panel).__mro__)
    places = [DashboardScreen, AcrfApp, *panels]
    found = [one for place in places for one in vars(place).get("BINDINGS", ()) if isinstance(one, Binding)]
    return [one for one in found if one.id]


BINDINGS = bindings()


def test_no_binding_is_left_out_and_none_is_made_up() -> None:
    assert {one.id for one in BINDINGS} == set(EFFECTS)


@pytest.mark.parametrize("binding", BINDINGS, ids=lambda one: one.id)
async def test_every_key_does_something(binding: Binding) -> None:
    effect = EFFECTS[binding.id or ""]
    source = FakeSource(make_history(100))
    async with dashboard(source) as (pilot, screen):
        for number in range(40):
            screen.run_state.note("note", f"entry number {number}", 1.0)
        await settle(pilot, lambda: len(screen.loss.chart.steps) > 0)
        if effect.before:
            await pilot.press(*effect.before)
            await pilot.pause(0.1)
        if effect.before == ["space"]:
            await settle(pilot, lambda: screen.run_state.state == "paused")
        assert not effect.done(screen, source)
        await pilot.press(binding.key.partition(",")[0])
        await settle(pilot, lambda: effect.done(screen, source))


@pytest.mark.parametrize("state", ["caching", "stopping", "finished"])
async def test_where_a_command_cannot_work_its_key_is_not_offered(state: str) -> None:
    source = FakeSource(make_history(100))
    async with dashboard(source) as (pilot, screen):
        source.push(StateChanged(state, 100, 4000))
        await settle(pilot, lambda: screen.run_state.state == state)
        await pilot.pause(0.1)
        offered = {one.binding.id for one in screen.active_bindings.values() if one.enabled}
        assert not offered & {"run.pause", "run.checkpoint", "run.preview", "run.learning-rate", "run.tweak"}
        assert {"app.leave", "app.help", "view.hide", "view.panels"} <= offered


async def test_an_observer_sees_the_commands_dimmed_in_the_keys_the_help_and_not_in_the_palette() -> None:
    from acrf_tui.commands import ActionsProvider

    source = FakeSource(make_history(100))
    source.read_only = True
    async with dashboard(source) as (pilot, screen):
        keys = screen.query_one("#keys")
        await settle(pilot, lambda: any(text.strip() == "space" for text, _ in keys.lines[0]))
        roles = {text.strip(): role for text, role in keys.lines[0]}
        assert (roles["space"], roles["c"], roles["z"]) == ("muted", "muted", "bold key")
        offered = [command.name for command in ActionsProvider(screen)._commands()]
        assert not any("Pause or" in name or "Save a checkpoint" in name for name in offered)
        assert any("Maximise" in name for name in offered)
        await pilot.press("question_mark")
        await settle(pilot, lambda: isinstance(pilot.app.screen, HelpDialog))
        lines = {one.tooltip: one.enabled for one in pilot.app.screen.keys}
        assert not lines["Save a checkpoint at the next step"]
        assert lines["Maximise the focused panel, or restore it"]

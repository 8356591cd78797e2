"""Every screen in a state worth looking at, and standing still: what the SVG snapshots are taken of."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fake_run import START, FakeApp, FakeSource, make_history
from textual.app import App
from textual.pilot import Pilot
from textual.strip import Strip
from textual.widgets import Input

from acrf_tui.app import AcrfApp, AppOptions
from acrf_tui.screens.launchpad import LaunchpadScreen
from acrf_tui.screens.launchpad_lists import ConfigList
from tests.tui.test_launchpad import make_run

NOW = START + 60.0
COLORLESS = "no-color"
THEMES = ("acrf-dark", "acrf-light", "acrf-ansi", COLORLESS)
SIZES = ((80, 24), (120, 40), (200, 50))
STILL_S = 0.12
LOUDEST_S = 20.0

Play = Callable[[Pilot[Any]], Awaitable[None]]


@dataclass(frozen=True)
class Scene:
    """An app, made in an empty folder, and what is done in it until the screen is the one to look at."""

    app: Callable[[str], App[Any]]
    play: Play


def hold_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same second for ever, in Greenwich."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    monkeypatch.setattr(time, "time", lambda: NOW)


async def stands_still(pilot: Pilot[Any]) -> str:
    """The screen as SVG, once it has stopped changing."""
    for widget in pilot.app.screen.query(Input):
        widget.cursor_blink = False
    before: list[Strip] = []
    end = time.monotonic() + LOUDEST_S
    while time.monotonic() < end:
        await pilot.pause(STILL_S)
        now = pilot.app.screen._compositor.render_strips()
        if now == before:
            return pilot.app.export_screenshot(title="acrf-tui")
        before = now
    raise AssertionError("the screen never stood still")


# ---- the dashboard ---------------------------------------------------------------------------------------------------


def _run(steps: int, **changes: Any) -> Callable[[str], App[Any]]:
    def make(theme: str) -> App[Any]:
        return FakeApp(FakeSource(make_history(steps, **changes)), theme_name=theme)

    return make


async def _history_is_read(pilot: Pilot[Any]) -> None:
    app = pilot.app
    assert isinstance(app, FakeApp)
    while not app.is_running or app.dashboard.run_state.last_seq < app.source.seq:
        await pilot.pause(0.02)


def _pressed(*keys: str) -> Play:
    async def play(pilot: Pilot[Any]) -> None:
        await _history_is_read(pilot)
        await pilot.pause()
        await pilot.press(*keys)

    return play


# ---- the launchpad ---------------------------------------------------------------------------------------------------


def _launchpad(theme: str) -> App[Any]:
    runs = Path("runs")
    for name, state, values in (
        ("sunflowers", "running", {"step": 17, "loss": 0.1234}),
        ("my-face", "finished", {"step": 40, "loss": 0.0871}),
        ("my-face-2", "interrupted", {"step": 12, "loss": 0.2, "error": "the machine was started anew"}),
    ):
        make_run(runs, name, state, created=NOW - 3700.0, **values)
    return AcrfApp(AppOptions(runs, theme=theme))


def _at_the_launchpad(*keys: str) -> Play:
    async def play(pilot: Pilot[Any]) -> None:
        while not isinstance(pilot.app.screen, LaunchpadScreen):
            await pilot.pause(0.02)
        while not pilot.app.screen.query(ConfigList) or pilot.app.screen.query_one(ConfigList).chosen is None:
            await pilot.pause(0.02)
        await pilot.press(*keys)

    return play


SCENES: dict[str, Scene] = {
    "dashboard": Scene(_run(400), _pressed()),
    "dashboard-before-the-first-step": Scene(_run(0), _pressed()),
    "dashboard-four-gpus": Scene(_run(400, gpus=4), _pressed()),
    "loss-maximised": Scene(_run(400), _pressed("2", "z")),
    "anchors-maximised": Scene(_run(400), _pressed("3", "z")),
    "gpu-maximised": Scene(_run(400), _pressed("4", "z")),
    "weight-maximised": Scene(_run(400), _pressed("5", "z")),
    "rate-dialog": Scene(_run(400), _pressed("l")),
    "tweak-dialog": Scene(_run(400), _pressed("t")),
    "leave-dialog": Scene(_run(400), _pressed("q")),
    "help": Scene(_run(400), _pressed("question_mark")),
    "launchpad": Scene(_launchpad, _at_the_launchpad()),
    "launchpad-runs": Scene(_launchpad, _at_the_launchpad("tab", "tab", "tab")),
    "new-run": Scene(_launchpad, _at_the_launchpad("n")),
}

"""Every screen in a state worth looking at, and standing still: what the SVG snapshots are taken of."""

from __future__ import annotations

import asyncio
import os
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
from textual.widgets import Input, TextArea

from acrf_engine.protocol import Failed, Finished, StateChanged
from acrf_engine.run.folder import RunFolder
from acrf_tui.app import AcrfApp, AppOptions
from acrf_tui.screens import dashboard
from acrf_tui.screens.compare import CompareScreen
from acrf_tui.screens.editor import EditorScreen
from acrf_tui.screens.launchpad import LaunchpadScreen
from acrf_tui.screens.launchpad_lists import ConfigList, RunList
from tests.tui.test_compare import Live
from tests.tui.test_launchpad import make_run
from tests.tui.waiting import until

NOW = START + 60.0
THEMES = ("acrf-dark", "acrf-light", "acrf-ansi")
SIZES = ((80, 24), (120, 40), (200, 50))
TICK_S = 0.03
TURNS = 6
"""Turns of the event loop, each at least a tick of the dashboard long, without which nothing counts as still."""
LOUDEST_S = 30.0

Play = Callable[[Pilot[Any]], Awaitable[None]]


@dataclass(frozen=True)
class Scene:
    """An app, made in an empty folder, and what is done in it until the screen is the one to look at."""

    app: Callable[[str], App[Any]]
    play: Play


def hold_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same second for ever, in Greenwich; the dashboard's ticks come fast, so that none is still to come."""
    monkeypatch.setattr(dashboard, "TICK_SECONDS", TICK_S)
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    monkeypatch.setattr(time, "time", lambda: NOW)


async def stands_still(pilot: Pilot[Any]) -> str:
    """The screen as SVG, once it has stopped changing."""
    for field in pilot.app.screen.query("Input, TextArea"):
        assert isinstance(field, Input | TextArea)
        field.cursor_blink = False
    before: list[Strip] = []
    same = 0
    end = time.monotonic() + LOUDEST_S
    while time.monotonic() < end:
        await pilot.pause()
        for _ in range(TURNS):  # turns, not seconds: on a busy machine a second may be none
            await asyncio.sleep(TICK_S)
        now = pilot.app.screen._compositor.render_strips()
        same = same + 1 if now == before else 0
        if same == 2:
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
    await until(lambda: app.screen is app.dashboard and app.dashboard.run_state.last_seq >= app.source.seq)


def _pressed(*keys: str) -> Play:
    async def play(pilot: Pilot[Any]) -> None:
        await _history_is_read(pilot)
        await pilot.pause()
        await pilot.press(*keys)

    return play


def _ended(state: str) -> Play:
    """The run has come to its end while one looks."""

    async def play(pilot: Pilot[Any]) -> None:
        await _history_is_read(pilot)
        app = pilot.app
        assert isinstance(app, FakeApp)
        last = {
            "finished": Finished(400, "runs/night-run/lora/night-run.safetensors"),
            "failed": Failed(400, "step 401: loss is nan in cat.png; no update was made (lower learning_rate)"),
        }
        app.source.push(StateChanged(state, 400, 4000), last[state])
        await _history_is_read(pilot)

    return play


async def _log(pilot: Pilot[Any]) -> None:
    app = pilot.app
    assert isinstance(app, FakeApp)
    log = RunFolder(app.source.folder).log
    log.parent.mkdir(parents=True)
    log.write_text("".join(f"2026-11-28 03:{n // 60:02}:{n % 60:02} acrf.worker INFO line {n}\n" for n in range(90)))
    await _pressed("w")(pilot)


# ---- the launchpad and what it opens ---------------------------------------------------------------------------------


def _launchpad(theme: str) -> App[Any]:
    runs = Path("runs")
    for name, steps, rank in (("my-face", 80, 8), ("my-face-2", 400, 32)):
        Live(runs, name, network_dim=rank).steps(1, steps).writer.close()
    make_run(runs, "sunflowers", "interrupted", step=12, loss=0.2, error="the machine was started anew")
    for folder in sorted(runs.iterdir()):
        run = RunFolder(folder)
        status = run.recorded_status()
        status.created = NOW - 3700.0
        run.write_status(status)
    options = AppOptions(runs, theme=theme, symbols="braille")
    return AcrfApp(options, colorless="NO_COLOR" in os.environ)


def _launchpad_with_a_config(theme: str) -> App[Any]:
    Path("portrait.yaml").write_text(
        "# For one person: 24 photographs.\nmodel: /models/Z-Image-Turbo\ndataset: demo  # ./photos, later\n"
        "trigger: ohwx\nepochs: 20\nloss:\n  lambda_cos: 0.2\n"
    )
    return _launchpad(theme)


async def _launchpad_is_there(pilot: Pilot[Any]) -> LaunchpadScreen:
    await until(lambda: isinstance(pilot.app.screen, LaunchpadScreen))
    screen = pilot.app.screen
    assert isinstance(screen, LaunchpadScreen)
    await until(lambda: bool(screen.query(ConfigList)) and screen.query_one(ConfigList).chosen is not None)
    await until(lambda: bool(screen.query(RunList)) and len(screen.query_one(RunList).runs) == 3)
    return screen


def _at_the_launchpad(*keys: str) -> Play:
    async def play(pilot: Pilot[Any]) -> None:
        await _launchpad_is_there(pilot)
        await pilot.press(*keys)
        await pilot.pause()

    return play


def _edit(*keys: str) -> Play:
    """The user's own config in the editor."""

    async def play(pilot: Pilot[Any]) -> None:
        screen = await _launchpad_is_there(pilot)
        configs = screen.query_one(ConfigList)
        await until(lambda: any(entry.origin == "here" for entry in configs.entries))
        await pilot.press("end", "e")
        await until(lambda: isinstance(pilot.app.screen, EditorScreen) and pilot.app.screen.live.loaded)
        await pilot.press(*keys)
        await pilot.pause()

    return play


async def _compare(pilot: Pilot[Any]) -> None:
    screen = await _launchpad_is_there(pilot)
    await pilot.press("tab")
    await until(lambda: screen.query_one(RunList).has_focus)
    await pilot.press("m", "down", "m", "c")
    await until(lambda: isinstance(pilot.app.screen, CompareScreen) and any(r.curve for r in pilot.app.screen.runs))


SCENES: dict[str, Scene] = {
    "dashboard": Scene(_run(400), _pressed()),
    "dashboard-before-the-first-step": Scene(_run(0), _pressed()),
    "dashboard-four-gpus": Scene(_run(400, gpus=4), _pressed()),
    "loss-maximised": Scene(_run(400), _pressed("2", "z")),
    "crosshair": Scene(_run(400), _pressed("2", "x", "shift+left")),
    "anchors-maximised": Scene(_run(400), _pressed("3", "z")),
    "gpu-maximised": Scene(_run(400), _pressed("4", "z")),
    "weight-maximised": Scene(_run(400), _pressed("5", "z")),
    "overview": Scene(_run(400), _pressed("8")),
    "jump": Scene(_run(400), _pressed("j")),
    "panels": Scene(_run(400), _pressed("p")),
    "rate-dialog": Scene(_run(400), _pressed("l")),
    "tweak-dialog": Scene(_run(400), _pressed("t")),
    "leave-dialog": Scene(_run(400), _pressed("q")),
    "theme-dialog": Scene(_run(400), _pressed("T")),
    "help": Scene(_run(400), _pressed("question_mark")),
    "log": Scene(_run(400), _log),
    "paused": Scene(_run(400), _pressed("space")),
    "finished": Scene(_run(400), _ended("finished")),
    "failed": Scene(_run(400), _ended("failed")),
    "launchpad": Scene(_launchpad, _at_the_launchpad()),
    "launchpad-runs": Scene(_launchpad, _at_the_launchpad("tab")),
    "new-run": Scene(_launchpad, _at_the_launchpad("n")),
    "editor": Scene(_launchpad_with_a_config, _edit()),
    "editor-with-a-problem": Scene(_launchpad_with_a_config, _edit(*["down"] * 3, "enter", "x", "enter")),
    "compare": Scene(_launchpad, _compare),
}

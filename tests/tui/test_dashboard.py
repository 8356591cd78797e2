"""The dashboard in an app: what a user sees when events come, at every size and theme."""

from __future__ import annotations

import asyncio
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from fake_run import FakeApp, FakeSource, make_hardware, make_history, make_plan, make_step
from textual.pilot import Pilot

from acrf_engine.protocol import Failed, Finished, Hardware, Memory, Progress, StateChanged
from acrf_tui.panels.panel import Panel
from acrf_tui.screens.dashboard import DashboardScreen


def screen_text(app: FakeApp) -> str:
    strips = app.screen._compositor.render_strips()
    return "\n".join(strip.text for strip in strips)


async def settle(pilot: Pilot, condition: Callable[[], bool], seconds: float = 15.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen:\n" + screen_text(pilot.app)
        await pilot.pause(0.05)


@asynccontextmanager
async def dashboard(
    source: FakeSource, size: tuple[int, int] = (120, 40), theme: str = "acrf-dark"
) -> AsyncIterator[tuple[Pilot, DashboardScreen]]:
    app = FakeApp(source, theme_name=theme)
    async with app.run_test(size=size) as pilot:
        screen = app.dashboard
        await settle(pilot, lambda: screen.run_state.last_seq >= source._history.last_seq and screen.is_mounted)
        await pilot.pause()
        yield pilot, screen


async def shows(pilot: Pilot, *texts: str) -> None:
    await settle(pilot, lambda: all(text in screen_text(pilot.app) for text in texts))


async def test_history_is_drawn_at_once_and_the_stream_goes_on() -> None:
    source = FakeSource(make_history(300))
    async with dashboard(source) as (pilot, screen):
        await shows(pilot, "night-run", "● RUNNING", "300 / 4,000", "images/s", "balanced", "checkpoint saved")
        source.push(make_step(301))
        await shows(pilot, "301 / 4,000")
        assert screen.run_state.gaps == 0


async def test_header_and_progress_say_the_same_times() -> None:
    source = FakeSource(make_history(300))
    async with dashboard(source) as (pilot, screen):
        for number in range(301, 331):
            source.push(make_step(number, step_time_s=0.1 + (number - 300) * 0.02))
            await settle(pilot, lambda number=number: screen.run_state.step == number)
            screen._tick()
            above, panel = screen_text(pilot.app).splitlines()[0], screen_text(pilot.app)
            eta = above.partition("ETA")[2].strip()
            assert re.search(rf"ETA +{re.escape(eta)} ", panel.partition("\n")[2]), panel


async def test_before_the_first_step_the_phase_is_shown() -> None:
    source = FakeSource()
    async with dashboard(source) as (pilot, _):
        source.push(StateChanged("caching", 0, 0), Progress("caching", 7, 24, "photos/007.jpg"))
        await shows(pilot, "CACHING", "7 / 24", "photos/007.jpg", "no steps yet", "29.2 %")
        before = screen_text(pilot.app)
        await asyncio.sleep(1.3)
        assert screen_text(pilot.app) != before, "a screen that waits still counts the seconds"
        source.push(make_plan(), StateChanged("running", 0, 4000), make_step(1))
        await shows(pilot, "1 / 4,000", "images/s", "micro-batches", "checkpoint")


@pytest.mark.parametrize(
    ("size", "present", "absent"),
    [
        ((80, 24), {"progress", "loss", "anchors", "gpu"}, {"journal", "weight", "rate"}),
        ((120, 40), {"progress", "loss", "anchors", "gpu", "weight", "rate", "journal"}, set()),
        ((200, 50), {"progress", "loss", "anchors", "gpu", "weight", "rate", "journal"}, set()),
        ((120, 30), {"progress", "loss", "anchors", "gpu", "weight", "journal"}, set()),
    ],
)
async def test_each_size_keeps_its_panels(size: tuple[int, int], present: set[str], absent: set[str]) -> None:
    async with dashboard(FakeSource(make_history(300)), size) as (pilot, screen):
        await pilot.pause()
        visible = {panel.id for panel in screen.query(Panel) if panel.is_on_screen and panel.region.height > 2}
        assert present <= visible
        assert not absent & visible
        for panel in screen.query(Panel):
            if panel.id in visible:
                assert screen.region.contains_region(panel.region), panel.id


async def test_the_loss_chart_is_the_largest_panel() -> None:
    for size in ((80, 24), (120, 40), (200, 50)):
        async with dashboard(FakeSource(make_history(100)), size) as (_, screen):
            areas = {panel.id: panel.region.area for panel in screen.query(Panel)}
            assert max(areas, key=lambda name: areas[name]) == "loss"


async def test_resizing_down_to_nothing_and_back_does_not_crash() -> None:
    source = FakeSource(make_history(300))
    async with dashboard(source) as (pilot, _):
        for size in ((20, 40), (20, 5), (60, 20), (70, 50), (250, 70), (1, 1), (120, 40)):
            await pilot.resize_terminal(*size)
            source.push(make_step(301 + size[0]))
            await pilot.pause(0.1)
            if size == (20, 40):
                assert "too small" in screen_text(pilot.app)
        await shows(pilot, "Anchors", "Journal", "balanced")


async def test_nan_is_shown_as_nan_and_training_goes_on() -> None:
    source = FakeSource(make_history(100))
    async with dashboard(source) as (pilot, screen):
        broken = make_step(101, loss=math.nan, loss_balanced=math.nan, grad_norm=math.inf, losses=[math.nan] * 4)
        source.push(broken)
        await shows(pilot, "balanced NaN", "raw NaN", "inf")
        assert math.isnan(screen.run_state.series.loss[-1])
        source.push(make_step(102))
        await shows(pilot, "102 / 4,000")


async def test_only_nan_from_the_start_does_not_crash() -> None:
    source = FakeSource(make_history(0))
    async with dashboard(source) as (pilot, screen):
        screen.action_log_scale()
        nan = math.nan
        source.push(make_plan(), StateChanged("running", 0, 4000))
        source.push(make_step(1, loss=nan, loss_balanced=nan, lr=nan, grad_norm=nan, step_time_s=nan))
        await shows(pilot, "balanced NaN")


async def test_cards_that_report_nothing_are_shown_as_such() -> None:
    source = FakeSource(make_history(20))
    async with dashboard(source) as (pilot, _):
        source.push(make_hardware(1, 1, supported=False), Memory(GIB_16, GIB_16))
        await shows(pilot, "NVIDIA GB10", "not reported", "torch peak 16.0 GiB")


GIB_16 = 16 * 1024**3


@pytest.mark.parametrize("gpus", [0, 1, 2, 4, 8])
async def test_any_number_of_gpus_fits(gpus: int) -> None:
    source = FakeSource(make_history(20, gpus=gpus))
    async with dashboard(source) as (pilot, _):
        source.push(make_hardware(gpus, 1, hot=True))
        await shows(pilot, *(["worker", "RAM"] if not gpus else ["RTX 4090", "GiB"]))
        if gpus > 1:
            await shows(pilot, f"{gpus - 1} RTX 4090")


async def test_a_failed_run_says_why_and_what_to_do() -> None:
    source = FakeSource(make_history(100))
    async with dashboard(source) as (pilot, screen):
        source.push(StateChanged("failed", 100, 4000, "CUDA out of memory"), Failed(100, "CUDA out of memory"))
        source.end()
        await shows(pilot, "✗ FAILED", "Failed: CUDA out of memory", "acrf-tui resume night-run")
        assert not screen.check_action("pause_or_resume", ())
        await settle(pilot, lambda: not screen._feed.alive)


async def test_a_finished_run_is_shown_from_history_alone() -> None:
    history = make_history(300)
    last = Finished(300, "lora/night-run.safetensors", seq=500, time=history.steps.time[-1] + 1)
    source = FakeSource(replace(history, events=[*history.events, last], last_seq=500))
    source.read_only = True
    source.end()
    async with dashboard(source) as (pilot, _):
        await shows(pilot, "✓ FINISHED", "acrf-tui export night-run --format comfyui", "balanced", "elapsed")


async def test_a_supervisor_that_vanishes_is_an_interrupted_run() -> None:
    source = FakeSource(make_history(100))
    async with dashboard(source) as (pilot, _):
        source.state = {"state": "interrupted", "error": "the supervisor was killed (SIGKILL)"}
        source.end()
        await shows(pilot, "✗ INTERRUPTED", "the supervisor was killed (SIGKILL)", "acrf-tui resume night-run")


async def test_a_link_that_breaks_is_told_and_tried_again() -> None:
    source = FakeSource(make_history(100))
    pull = source.pull
    async with dashboard(source) as (pilot, _):

        def broken(after: int, timeout: float) -> list:
            raise ConnectionError("connection refused")

        source.pull = broken
        source.push(make_step(101))
        await shows(pilot, "NO LINK", "connection refused")
        source.pull = pull
        source.push(make_step(102))
        await shows(pilot, "102 / 4,000")
        await settle(pilot, lambda: "NO LINK" not in screen_text(pilot.app))


async def test_the_feed_fetches_again_only_when_the_last_batch_was_taken() -> None:
    source = FakeSource(make_history(10))
    async with dashboard(source) as (pilot, screen):
        calls = []
        pull = source.pull
        source.pull = lambda after, timeout: (calls.append(after), pull(after, timeout))[1]
        screen._feed.taken = lambda: None
        source.push(make_step(11))
        await settle(pilot, lambda: screen.run_state.step == 11)
        await pilot.pause(0.3)
        seen = len(calls)
        source.push(make_step(12))
        await pilot.pause(0.3)
        assert len(calls) == seen


@pytest.mark.parametrize("theme", ["acrf-light", "acrf-contrast", "acrf-ansi", "textual-dark", "nord"])
async def test_every_theme_draws_and_can_be_switched_to(theme: str) -> None:
    source = FakeSource(make_history(300))
    async with dashboard(source) as (pilot, screen):
        before = screen.loss.chart.plot._style(0)
        pilot.app.theme = theme
        await pilot.pause(0.1)
        await shows(pilot, "RUNNING", "balanced")
        assert screen.loss.chart.plot._style(0) != before


async def test_appending_a_step_repaints_a_small_part_of_the_chart() -> None:
    source = FakeSource(make_history(300))
    async with dashboard(source) as (_, screen):
        plot = screen.loss.chart.plot
        regions = []
        for tile in plot.tiles:
            refresh = tile.refresh

            def spy(*dirty: object, _refresh: Callable = refresh, **options: object) -> object:
                regions.extend(dirty or ["all"])
                return _refresh(*dirty, **options)

            tile.refresh = spy
        screen.run_state.apply(replace(make_step(301), seq=0))
        screen.loss.paint(screen.run_state, 0.0)
        assert "all" not in regions
        assert sum(region.area for region in regions) < plot.size.area * 0.05


async def test_a_state_that_did_not_change_repaints_nothing() -> None:
    source = FakeSource(make_history(300))
    async with dashboard(source) as (pilot, screen):
        await pilot.pause(1.1)
        await settle(pilot, lambda: not screen.loss.behind)
        painted = []
        for panel in screen.query(Panel):
            if panel.id != "progress":
                panel.paint = lambda *_: painted.append(1)
        await pilot.pause(0.8)
        assert not painted


async def test_a_million_steps_are_loaded_and_drawn_in_moments() -> None:
    history = make_history(10)
    count = 1_000_000
    for name, column in vars(history.steps).items():
        while len(column) < count:
            column.extend(column[: count - len(column)])
        if name == "step":
            for index in range(count):
                column[index] = index + 1
    async with dashboard(FakeSource(history)) as (pilot, screen):
        begin = time.thread_time()
        for chart in (screen.loss.chart, screen.query_one("#rate").rate_chart):
            chart._columns.clear()
            chart.paint()
        assert time.thread_time() - begin < 1.5
        await shows(pilot, "1,000,000")


@pytest.mark.parametrize("variable", ["NO_COLOR", "TEXTUAL_COLOR_SYSTEM"])
def test_without_colours_the_dashboard_runs(variable: str) -> None:
    code = (
        "import asyncio, sys\n"
        "from fake_run import FakeApp, FakeSource, make_history\n"
        "async def main():\n"
        "    app = FakeApp(FakeSource(make_history(300)))\n"
        "    async with app.run_test(size=(120, 40)) as pilot:\n"
        "        await pilot.pause(0.5)\n"
        "        await pilot.press('l'); await pilot.pause(0.2); await pilot.press('escape')\n"
        "        await pilot.press('z'); await pilot.pause(0.4)\n"
        "        assert any('balanced' in s.text for s in app.screen._compositor.render_strips())\n"
        "    assert app.return_code in (0, None), app.return_code\n"
        "    assert not any(n == 'torch' or n.startswith('torch.') for n in sys.modules)\n"
        "    print('drawn')\n"
        "asyncio.run(main())\n"
    )
    here = Path(__file__).resolve()
    path = os.pathsep.join([str(here.parent), str(here.parents[2])])
    value = "1" if variable == "NO_COLOR" else "standard"
    environment = {**os.environ, variable: value, "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "drawn", done.stderr


async def test_footer_shows_keys_that_work_now() -> None:
    source = FakeSource(make_history(100))
    async with dashboard(source) as (pilot, _):
        await shows(pilot, "space Pause")
        source.push(StateChanged("paused", 100, 4000))
        await shows(pilot, "space Resume", "PAUSED")
        source.push(StateChanged("stopping", 100, 4000))
        await shows(pilot, "STOPPING")
        await settle(pilot, lambda: "Resume" not in screen_text(pilot.app))


async def test_a_machine_sample_without_note_still_says_something() -> None:
    source = FakeSource(make_history(0))
    async with dashboard(source) as (pilot, _):
        source.push(Hardware([], ""))
        await shows(pilot, "no GPU is visible on this machine")

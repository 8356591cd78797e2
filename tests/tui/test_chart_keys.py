"""Looking closer at the charts: pan, zoom, crosshair, markers, validation, and the characters they are drawn with."""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Callable
from dataclasses import replace

import fake_run
import pytest
from fake_run import FakeSource, make_history, make_plan, make_step
from test_dashboard import dashboard, screen_text, settle, shows

from acrf_engine.protocol import Ack, Checkpoint, Preview, Validation, WarningEvent
from acrf_tui.charts.line_chart import LineChart, Series
from acrf_tui.charts.lines import LineView
from acrf_tui.charts.plot import PlotTile
from acrf_tui.charts.symbols import SYMBOL_SETS
from acrf_tui.panels.loss import SHORT_NAMES
from acrf_tui.screens.dashboard import DashboardScreen
from acrf_tui.screens.dialogs import HelpDialog
from acrf_tui.state import MARKER_LIMIT, RunState


def legend(screen: DashboardScreen) -> str:
    return "".join(text for text, _ in screen.query_one("#loss-legend").lines[0])


def crosshair_columns(chart: LineChart) -> set[int]:
    """Columns with a piece of the vertical line, or with the mark of the value that was read."""
    line = len(chart.plot.roles) - 1
    rows = chart.plot.rows
    return {x for row in rows for x, char in enumerate(row.text) if row.owners[x] == line or char == "●"}


async def test_left_looks_back_and_end_follows_again() -> None:
    source = FakeSource(make_history(1400))
    async with dashboard(source) as (pilot, screen):
        await pilot.press("plus", "plus", "left", "left")
        begin, end = screen.loss.view.window()
        await shows(pilot, f"steps {begin:,.0f}–{end:,.0f} of 4,000, end follows")
        source.push(make_step(1401))
        await shows(pilot, "1,401 / 4,000")
        assert screen.loss.view.window() == (begin, end), "what is looked at stands still"
        await pilot.press("end")
        assert screen.loss.view.follows
        await shows(pilot, "linear, zoom 4 ×")
        await pilot.press("home")
        assert screen.loss.view.window()[0] == 0


async def test_the_crosshair_reads_every_chart_at_one_step() -> None:
    source = FakeSource(make_history(1400))
    async with dashboard(source) as (pilot, screen):
        series = screen.run_state.series
        await pilot.press("x")
        await shows(pilot, "step 1,400")
        await pilot.press("shift+left", "left")
        step = int(screen.loss.view.cross or 0)
        index = series.step.index(step)
        assert 900 < step < 1400
        await shows(pilot, f"step {step:,}", f"raw {series.loss[index]:.4f}", f"{series.lr[index]:.2e}")
        assert f"balanced {series.loss_balanced[index]:.4f}" in legend(screen)
        rate = screen.query_one("#rate")
        for chart in (screen.loss.chart, rate.rate_chart, rate.norm_chart):
            assert len(crosshair_columns(chart)) == 1, "one vertical line in each"
        await pilot.press("C")
        assert f"Char {series.loss_char[index]:.4f}" in legend(screen)
        await pilot.press("escape")
        assert screen.loss.view.cross is None
        assert legend(screen).startswith("━ balanced")
        assert not crosshair_columns(rate.norm_chart)


async def test_zoomed_in_right_goes_step_by_step_and_zoom_keeps_the_crosshair() -> None:
    async with dashboard(FakeSource(make_history(1400))) as (pilot, screen):
        await pilot.press("x", "shift+left", *["plus"] * 7)
        step = screen.loss.view.cross
        begin, end = screen.loss.view.window()
        assert begin <= step <= end
        assert end - begin < 40
        await pilot.press("right")
        assert screen.loss.view.cross == step + 1
        await pilot.press(*["shift+right"] * 5)
        begin, end = screen.loss.view.window()
        assert begin <= screen.loss.view.cross <= end, "the window goes with it"


async def test_a_crosshair_off_leaves_escape_to_the_maximised_view() -> None:
    async with dashboard(FakeSource(make_history(300))) as (pilot, screen):
        await pilot.press("z", "x")
        await pilot.press("escape")
        assert screen.maximized is not None
        assert screen.loss.view.cross is None
        await pilot.press("escape")
        await settle(pilot, lambda: screen.maximized is None)


async def test_the_keys_work_in_the_rate_panel_too() -> None:
    async with dashboard(FakeSource(make_history(1400))) as (pilot, screen):
        await pilot.press("6", "x", "left")
        step = screen.loss.view.cross
        assert step < 1400
        await shows(pilot, f"step {step:,.0f}")
        assert f"step {step:,.0f}" in legend(screen)


async def test_the_pointer_reads_a_click_holds_and_the_wheel_zooms_there() -> None:
    async with dashboard(FakeSource(make_history(1400))) as (pilot, screen):
        plot = screen.loss.chart.plot
        view = screen.loss.view
        await pilot.hover(plot, offset=(plot.size.width // 2, 3))
        await settle(pilot, lambda: view.cross is not None)
        step = view.cross
        assert step == pytest.approx(1024, abs=40)
        await shows(pilot, f"step {step:,.0f}")
        await pilot.hover("#gpu")
        await settle(pilot, lambda: view.cross is None)
        await pilot.click(plot, offset=(plot.size.width // 2, 3))
        await pilot.hover("#gpu")
        await pilot.pause()
        assert view.cross == step, "held"
        await pilot.click(plot, offset=(plot.size.width // 2, 3))
        assert view.cross is None
        x, y = plot.region.x + 10, plot.region.y + 3
        under = screen.loss.chart.x_at(x)
        await pilot._post_mouse_events([events().MouseScrollUp], offset=(x, y))
        await pilot.pause()
        begin, end = view.window()
        assert end - begin == 1024
        assert begin <= under <= end


def events():
    from textual import events as textual_events

    return textual_events


async def test_dragging_moves_the_window_with_the_pointer() -> None:
    async with dashboard(FakeSource(make_history(1400))) as (pilot, screen):
        await pilot.press(*["plus"] * 3)
        plot = screen.loss.chart.plot
        begin, end = screen.loss.view.window()
        await pilot.mouse_down(plot, offset=(10, 3))
        await pilot.hover(plot, offset=(40, 3))
        await pilot.mouse_up(plot, offset=(40, 3))
        left, right = screen.loss.view.window()
        assert left == pytest.approx(begin - 30 / plot.size.width * (end - begin))
        assert right - left == end - begin
        assert not screen.loss.view.held, "a drag is no click"


async def test_what_happened_stands_on_the_step_axis() -> None:
    source = FakeSource(make_history(150))
    async with dashboard(source) as (pilot, screen):
        source.push(make_step(151))
        await shows(pilot, "151 / 4,000")
        assert not screen.loss.chart.has_class("-marked"), "no empty row while there is nothing"
        source.push(
            Checkpoint(20, "checkpoints/step-000020", 41_200_000, 0.3),
            Ack("c1", "set", True, 60, "", "learning_rate", 1e-4, 2e-4),
            Preview(100, "a lighthouse", "a.png", "", 1, 8, 2.0),
            WarningEvent("a spike", 130),
            WarningEvent("before the first step", 0),
            make_plan(start_step=140),
        )
        await settle(pilot, lambda: screen.loss.chart.has_class("-marked"))
        await pilot.pause()
        row = "".join(text for text, _ in screen.loss.chart.x_axis.lines[0])
        assert row.split() == ["◆", "▸", "▣", "▲", "↻"]
        roles = {text: role for text, role in screen.loss.chart.x_axis.lines[0] if text.strip()}
        assert roles["◆"] == "marker-checkpoint"
        assert len(set(roles.values())) == 5
        screen.loss.view.read(60.0)
        await shows(pilot, "▸ set learning_rate")
        screen.loss.view.read(140.0)
        await shows(pilot, "↻ resumed")


def test_markers_are_bounded_and_a_refusal_is_none() -> None:
    state = RunState()
    state.apply(Ack("c", "set", False, 5, "out of range", "learning_rate", 1.0))
    assert not state.markers
    for step in range(1, MARKER_LIMIT + 50):
        state.apply(WarningEvent("again", step))
    assert len(state.markers) == MARKER_LIMIT
    assert state.markers[-1].step == MARKER_LIMIT + 49


async def test_values_that_are_not_finite_are_marked_and_never_a_bound() -> None:
    source = FakeSource(make_history(100))
    async with dashboard(source) as (pilot, screen):
        chart = screen.loss.chart
        before = chart.bounds.low, chart.bounds.high
        assert "▾" not in chart.plot.rows[0].text
        source.push(make_step(101, loss=math.inf), make_step(102, loss=math.nan), make_step(103))
        await settle(pilot, lambda: "▾" in chart.plot.rows[0].text)
        place = chart.plot.rows[0].text.index("▾")
        assert chart.plot.roles[chart.plot.rows[0].owners[place]] == "bad"
        assert (chart.bounds.low, chart.bounds.high) == before
        await pilot.press("R")
        assert "▾" not in chart.plot.rows[0].text, "a hidden series marks nothing"


def validated(step: int, loss: float) -> Validation:
    return Validation(step, loss, [loss] * 10, 4, 0.5)


async def test_validation_is_drawn_where_there_is_any_and_v_hides_it() -> None:
    source = FakeSource(make_history(300))
    async with dashboard(source) as (pilot, screen):
        assert "val" not in legend(screen)
        chart = screen.loss.chart
        source.push(validated(100, 0.2), validated(200, math.nan), validated(300, 0.15), make_step(301))
        await settle(pilot, lambda: "0.1500" in legend(screen))
        owner = chart.plot.roles.index("series-validation")
        discs = [x for row in chart.plot.rows for x, char in enumerate(row.text) if char == "●"]
        assert len(discs) == 2, "two values are finite"
        assert "▾" in chart.plot.rows[0].text
        assert any(owner in row.owners for row in chart.plot.rows)
        screen.loss.view.read(50.0)
        assert re.search(r"val\w* –", legend(screen)), "there was none yet"
        screen.loss.view.read(150.0)
        assert "0.2000" in legend(screen)
        screen.loss.view.read(None)
        await pilot.press("V")
        assert "series-validation" not in chart.plot.roles


async def test_the_legend_fits_or_uses_short_names() -> None:
    for size in ((80, 24), (120, 40), (200, 50)):
        history = make_history(300)
        events = [*history.events, replace(validated(100, 0.2), seq=9, time=history.steps.time[99])]
        async with dashboard(FakeSource(replace(history, events=events)), size) as (pilot, screen):
            for _ in range(2):
                assert len(legend(screen).rstrip()) <= screen.query_one("#loss-legend").size.width
                assert f"{SHORT_NAMES['validation']} 0.2" in legend(screen) or "validation 0.2" in legend(screen)
                await pilot.press("x")


async def test_steps_that_a_resume_takes_back_are_gone_at_the_next_key() -> None:
    source = FakeSource(make_history(300))
    async with dashboard(source) as (pilot, screen):
        screen.run_state.apply(replace(make_step(120), seq=0))
        await pilot.press("x", "left", "plus")
        assert screen.loss.view.cross <= 120


@pytest.mark.parametrize("name", sorted(SYMBOL_SETS))
@pytest.mark.parametrize("maximised", ["", "2", "3", "5"])
async def test_everything_is_drawn_with_the_symbols_of_the_app(
    name: str, maximised: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake_run, "SYMBOLS", name)
    source = FakeSource(make_history(600))
    async with dashboard(source) as (pilot, screen):
        source.push(make_step(601, loss=math.nan))
        await shows(pilot, "601")
        await pilot.press("x", "left", *([maximised, "z"] if maximised else []))
        await pilot.pause()
        await pilot.pause()
        drawn = [*screen.query(LineView), *screen.query(PlotTile)]
        lines = [view.render_line(y).text for view in drawn if view.is_on_screen for y in range(view.size.height)]
        text = "".join(lines)
        assert any("⠀" < char <= "⣿" for char in text) is (name == "braille" and maximised != "3")
        if name == "ascii":
            assert not {char for char in text if not char.isascii()}


async def test_the_maximised_anchors_show_the_map_and_the_list() -> None:
    source = FakeSource(make_history(40))
    async with dashboard(source) as (pilot, screen):
        await pilot.press("3", "z")
        await shows(pilot, "mean loss", "step", "1.000", "0.009", "· none")
        heat = screen.query_one("AnchorHeat")
        owners = {owner for row in heat.plot.rows for owner in row.owners}
        assert len(owners) >= 3, "several steps of colour"
        await pilot.press("z")
        await settle(pilot, lambda: screen.maximized is None)
        assert not heat.display


async def test_the_maximised_weight_shows_the_snr_with_anchors_and_gamma() -> None:
    for size in ((80, 24), (120, 40), (200, 50)):
        async with dashboard(FakeSource(make_history(40)), size) as (pilot, screen):
            await pilot.press("5")
            if screen.maximized is None:
                await pilot.press("z")
            await shows(pilot, "SNR(σ) = ((1 - σ) / σ)^2, log", "γ 5", "0.309", "1e4", "1e-4", "anchor")
            plot = screen.query_one("#weight-snr Plot")
            assert sum(row.text.count("○") for row in plot.rows) >= 8


async def test_the_help_says_what_balanced_means_and_names_the_signs() -> None:
    async with dashboard(FakeSource(make_history(100)), (120, 100)) as (pilot, _):
        await pilot.press("question_mark")
        await settle(pilot, lambda: isinstance(pilot.app.screen, HelpDialog))
        text = " ".join(screen_text(pilot.app).split())
        assert "the mean over the anchors of each anchor's own running mean" in text
        for part in ("◆ checkpoint", "▾ at the top", "Charts: follow the newest steps", "read the values at one step"):
            assert part in text


def spy_on(chart: LineChart) -> list[object]:
    regions: list[object] = []
    for tile in chart.plot.tiles:
        refresh = tile.refresh

        def spy(*dirty: object, _refresh: Callable = refresh, **options: object) -> object:
            regions.extend(dirty or ["all"])
            return _refresh(*dirty, **options)

        tile.refresh = spy
    return regions


async def test_moving_the_crosshair_repaints_two_columns() -> None:
    async with dashboard(FakeSource(make_history(1400))) as (pilot, screen):
        await pilot.press("x", "shift+left")
        chart = screen.loss.chart
        regions = spy_on(chart)
        await pilot.press("left")
        assert "all" not in regions
        assert 0 < sum(region.area for region in regions) <= 2 * chart.plot.size.height


async def test_a_held_view_is_not_ahead_of_its_panel() -> None:
    source = FakeSource(make_history(300))
    async with dashboard(source) as (pilot, screen):
        await pilot.press("f", "x")
        regions = spy_on(screen.loss.chart)
        rows = list(screen.loss.chart.plot.rows)
        source.push(*(make_step(n, loss_balanced=0.02) for n in range(301, 340)))
        await settle(pilot, lambda: screen.run_state.step == 339)
        screen.loss.chart.paint()
        assert screen.loss.chart.plot.rows == rows
        assert not regions


async def test_a_million_points_take_one_more_at_once() -> None:
    chart = LineChart([Series("loss", "series-raw")], axes=False)
    count = 1_000_000
    xs, ys = array("d", range(count)), array("d", [1.0]) * count
    from textual.app import App

    class Holder(App[None]):
        def compose(self):
            yield chart

    async with Holder().run_test(size=(100, 20)) as pilot:
        chart.set_data(xs, {"loss": ys}, 2 * count)
        chart.paint()
        columns = chart._columns["loss"]
        xs.append(float(count))
        ys.append(2.0)
        chart.set_data(xs, {"loss": ys}, 2 * count)
        regions = spy_on(chart)
        chart.paint()
        await pilot.pause()
        assert chart._columns["loss"] is columns, "what was gathered stays"
        assert columns.consumed == count + 1
        assert "all" not in regions


def test_a_history_with_a_map_is_taken_as_it_is_and_one_without_from_its_last_steps() -> None:
    plain = RunState()
    plain.load(make_history(100))
    assert plain.anchor_map.draws() == 64 * 4

    stored = RunState()
    stored.load(replace(make_history(100), anchor_map=[(0, 63, 2, 30, 0.25), (64, 127, 2, 10, math.nan)]))
    assert stored.anchor_map.draws() == 40
    assert stored.anchor_map.mean(2, 0, 63) == 0.25
    assert math.isnan(stored.anchor_map.mean(2, 64, 128))

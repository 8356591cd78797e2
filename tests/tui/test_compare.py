"""Runs over one another: real histories by the real writer, in a real app."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acrf_engine.config import build_config, dump
from acrf_engine.run.folder import RunFolder, create_run
from acrf_engine.run.telemetry import TelemetryWriter
from acrf_engine.run.wire import to_wire
from acrf_tui.app import AcrfApp, AppOptions
from acrf_tui.charts import raster, scale
from acrf_tui.charts.lines import LineView
from acrf_tui.screens import compare as module
from acrf_tui.screens.compare import CompareScreen
from acrf_tui.screens.compare_chart import LETTERS, RunsChart, Scene, Trace, draw
from acrf_tui.screens.compare_runs import Compared, flat
from acrf_tui.screens.compare_table import METRICS, difference_lines, differences, run_lines, value_at
from acrf_tui.screens.dialogs import HelpDialog
from tests.tui.fake_run import make_step
from tests.tui.waiting import until


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Live:
    """A run that is written to while it is looked at."""

    def __init__(self, runs: Path, name: str, **config: Any) -> None:
        self.folder: RunFolder = create_run(runs, name, dump(build_config(config)), 400)
        self.writer = TelemetryWriter(self.folder.telemetry)
        self.seq = 0

    def steps(self, first: int, last: int, **changes: Any) -> Live:
        for number in range(first, last + 1):
            self.seq += 1
            self.writer.record(to_wire(make_step(number, 400, **changes)) | {"seq": self.seq, "time": 1e9 + number})
        self.writer.commit()
        status = self.folder.recorded_status()
        status.state, status.step = "finished", last
        self.folder.write_status(status)
        return self


@contextmanager
def two(home: Path) -> Iterator[tuple[Live, Live]]:
    first = Live(home / "runs", "first", network_dim=8).steps(1, 80, loss_balanced=0.5, step_time_s=0.1)
    second = Live(home / "runs", "second", network_dim=32).steps(1, 40, loss_balanced=0.25, step_time_s=0.5)
    yield first, second


async def compared(app: AcrfApp, *runs: Live) -> CompareScreen:
    screen = CompareScreen([run.folder for run in runs])
    await until(lambda: app.launchpad is not None)
    app.push_screen(screen)
    await until(lambda: any(len(run.curve) for run in screen.runs) and bool(text_of(screen, "compare-runs")))
    return screen


def make_app(home: Path) -> AcrfApp:
    return AcrfApp(AppOptions(home / "runs"))


def text_of(screen: CompareScreen, id: str) -> str:
    return "\n".join("".join(text for text, _ in line) for line in screen.query_one(f"#{id}", LineView).lines)


def chart_text(screen: CompareScreen) -> str:
    return "\n".join(row.text for row in screen.query_one(RunsChart).plot.rows)


# ---- in the app ------------------------------------------------------------------------------------------------------


async def test_two_runs_are_laid_over_one_another_with_what_is_different(home: Path) -> None:
    with two(home) as (first, second):
        app = make_app(home)
        async with app.run_test(size=(120, 40)):
            screen = await compared(app, first, second)
            await until(lambda: "A" in chart_text(screen) and "B" in chart_text(screen))
            table = text_of(screen, "compare-runs")
            assert "first" in table.splitlines()[1]
            assert "0.5000" in table.splitlines()[1]
            assert "0.2500" in table.splitlines()[2]
            rows = text_of(screen, "compare-differences").splitlines()
            assert [row.split() for row in rows] == [["config", "A", "B"], ["network_dim", "8", "32"]]


async def test_by_step_the_longer_run_ends_at_the_right_and_by_time_the_slower_one(home: Path) -> None:
    def ends(screen: CompareScreen) -> dict[str, int]:
        return {letter: max(row.rfind(letter) for row in chart_text(screen).splitlines()) for letter in "AB"}

    with two(home) as (first, second):
        app = make_app(home)
        async with app.run_test(size=(120, 40)) as pilot:
            screen = await compared(app, first, second)
            await until(lambda: ends(screen)["A"] > ends(screen)["B"] > 0)
            await pilot.press("a")
            await until(lambda: ends(screen)["B"] > ends(screen)["A"] > 0)
            assert "by training time" in text_of(screen, "compare-head")
            assert "s trained" in "".join(text for text, _ in screen.query_one(RunsChart).x_axis.lines[0])


async def test_the_metric_the_scale_and_the_smoothing_change_by_key(home: Path) -> None:
    with two(home) as (first, second):
        app = make_app(home)
        async with app.run_test(size=(120, 40)) as pilot:
            screen = await compared(app, first, second)
            for metric in (*METRICS[1:], METRICS[0]):
                await pilot.press("m")
                assert screen.metric is metric
            await pilot.press("M")
            assert screen.metric.key == "grad_norm"
            assert "trailing mean" in text_of(screen, "compare-head")
            before = chart_text(screen)
            await pilot.press("s")
            assert "trailing mean" not in text_of(screen, "compare-head")
            assert chart_text(screen) != before
            await pilot.press("g")
            assert "log" in text_of(screen, "compare-head").split("by step")[1]
            begin = screen.query_one(RunsChart).scene.begin
            await pilot.press("plus")
            assert screen.query_one(RunsChart).scene.begin > begin
            await pilot.press("minus")
            assert screen.query_one(RunsChart).scene.begin == begin


async def test_the_crosshair_says_what_every_run_had_there(home: Path) -> None:
    with two(home) as (first, second):
        app = make_app(home)
        async with app.run_test(size=(120, 40)) as pilot:
            screen = await compared(app, first, second)
            await pilot.press("left")  # at the last step of the longer run: the other one has none there
            assert screen.cross == 80
            lines = text_of(screen, "compare-runs").splitlines()
            assert lines[1].count("0.5000") == 3
            assert " – " in lines[2]
            while screen.cross is not None and screen.cross > 40:
                await pilot.press("left")
            assert text_of(screen, "compare-runs").splitlines()[2].count("0.2500") == 3
            await pilot.press("pageup")
            assert screen.cross is not None
            assert screen.cross < 39
            await pilot.press("pagedown", "right", "escape")
            assert screen.cross is None
            assert app.screen is screen
            await pilot.press("escape")
            await until(lambda: app.screen is app.launchpad)


async def test_a_run_is_hidden_by_its_number_and_comes_back(home: Path) -> None:
    with two(home) as (first, second):
        app = make_app(home)
        async with app.run_test(size=(120, 40)) as pilot:
            screen = await compared(app, first, second)
            await until(lambda: "A" in chart_text(screen))
            await pilot.press("1")
            assert "A" not in chart_text(screen)
            assert "B" in chart_text(screen)
            await pilot.press("2")
            assert "All runs are hidden" in chart_text(screen)
            await pilot.press("1", "5")  # there is no fifth run
            assert "A" in chart_text(screen)


async def test_a_run_that_goes_on_grows_and_one_without_steps_says_so(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.1)
    first, empty = Live(home / "runs", "first").steps(1, 10), Live(home / "runs", "empty")
    app = make_app(home)
    async with app.run_test(size=(120, 40)):
        screen = await compared(app, first, empty)
        first.steps(11, 60)
        await until(lambda: len(screen.runs[0].curve) == 60 and " 60 / 400" in text_of(screen, "compare-runs"))
        assert "same" in text_of(screen, "compare-differences")
        assert "–" in text_of(screen, "compare-runs").splitlines()[2]


async def test_while_a_run_goes_on_the_others_stand_still(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.1)
    live, ended = Live(home / "runs", "live").steps(1, 70), Live(home / "runs", "ended").steps(1, 60)
    status = live.folder.recorded_status()
    status.state, status.total_steps = "running", 400
    app = make_app(home)
    with live.folder.hold():
        live.folder.write_status(status)
        async with app.run_test(size=(120, 40)) as pilot:
            screen = await compared(app, live, ended)
            for unit in ("step", "s trained"):
                chart = screen.query_one(RunsChart)
                await until(lambda chart=chart, unit=unit: chart.unit == unit)
                before = (chart.scene.begin, chart.scene.end)
                first = len(screen.runs[0].curve) + 1
                live.steps(first, first + 4)
                live.folder.write_status(status)
                await until(lambda first=first: len(screen.runs[0].curve) == first + 4)
                assert (chart.scene.begin, chart.scene.end) == before
                await pilot.press("a")


async def test_before_the_first_step_the_chart_says_what_is_missing(home: Path) -> None:
    app = make_app(home)
    runs = [Live(home / "runs", name) for name in ("one", "two")]
    async with app.run_test(size=(80, 24)):
        await until(lambda: app.launchpad is not None)
        screen = CompareScreen([run.folder for run in runs])
        app.push_screen(screen)
        await until(lambda: screen.is_mounted and "no steps yet" in chart_text(screen))


async def test_at_80x24_chart_and_configs_take_turns(home: Path) -> None:
    with two(home) as (first, second):
        app = make_app(home)
        async with app.run_test(size=(80, 24)) as pilot:
            screen = await compared(app, first, second)
            shown = [screen.query_one(f"#{id}") for id in ("compare-chart", "compare-configs")]
            assert [one.display for one in shown] == [True, False]
            await pilot.press("d")
            assert [one.display for one in shown] == [False, True]
            await pilot.press("d")
            await pilot.resize_terminal(120, 40)
            await until(lambda: [one.display for one in shown] == [True, True])
            await pilot.press("d")
            assert [one.display for one in shown] == [True, False]
            await pilot.press("d")
            await pilot.resize_terminal(50, 24)
            await until(lambda: bool(screen.query_one("#compare-too-small").display))


async def test_help_lists_the_keys_of_the_comparison(home: Path) -> None:
    with two(home) as (first, second):
        app = make_app(home)
        async with app.run_test(size=(120, 40)) as pilot:
            await compared(app, first, second)
            await pilot.press("question_mark")
            await until(lambda: isinstance(app.screen, HelpDialog))
            assert isinstance(app.screen, HelpDialog)
            texts = " ".join(one.tooltip for one in app.screen.keys)
            for wanted in ("Align by step", "next metric", "Crosshair", "Hide run A"):
                assert wanted in texts


# ---- drawing and tables, without an app ------------------------------------------------------------------------------


def test_not_a_number_is_a_gap_not_a_zero() -> None:
    xs = [float(n) for n in range(100)]
    ys = [math.nan if 40 <= n < 60 else 5.0 for n in range(100)]
    picture = draw([Trace(0, xs, ys)], Scene(0.0, 100.0), 50, 10, scale.Bounds())
    assert all(row.text[21:29].strip() == "" for row in picture.rows)
    assert any(row.text[:20].strip() for row in picture.rows)


def test_every_run_has_its_letter_on_its_line_in_its_colour() -> None:
    xs = [float(n) for n in range(200)]
    traces = [Trace(index, xs, [1.0 + index] * 200) for index in range(6)]
    picture = draw(traces, Scene(0.0, 200.0), 60, 24, scale.Bounds())
    for index, letter in enumerate(LETTERS):
        cells = [(row, x) for row in picture.rows for x, char in enumerate(row.text) if char == letter]
        assert cells
        assert {picture.roles[row.owners[x]] for row, x in cells} == {f"run-{index + 1}"}


@given(
    st.lists(st.lists(st.floats(-1e6, 1e6) | st.just(math.nan), max_size=40), min_size=1, max_size=6),
    st.booleans(),
    st.booleans(),
)
def test_any_numbers_are_drawn_inside_the_chart(runs: list[list[float]], log: bool, smooth: bool) -> None:
    traces = [Trace(i, [float(n) for n in range(len(ys))], ys) for i, ys in enumerate(runs)]
    picture = draw(traces, Scene(0.0, 40.0, log, smooth, cross=3.0), 20, 6, scale.Bounds())
    assert [len(row.text) for row in picture.rows] == [20] * 6
    owners = {owner for row in picture.rows for owner in row.owners}
    assert owners <= {*range(len(picture.roles)), raster.EMPTY}


def test_differences_are_exactly_the_keys_that_differ() -> None:
    one = flat({"a": 1, "loss": {"fft": 0.1, "cos": 0.1}, "prompts": ["x", "y"], "only": True, "empty": {}})
    two = flat({"a": 1, "loss": {"fft": 0.2, "cos": 0.1}, "prompts": ["x"], "empty": {}})
    assert differences([one, two]) == [
        ("loss.fft", ["0.1", "0.2"]),
        ("prompts", ["x, y", "x"]),
        ("only", ["true", "–"]),
    ]


def test_a_list_of_folders_is_compared_folder_by_folder() -> None:
    assert flat({"dataset": [{"path": "/a", "repeats": 2}]}) == {"dataset.1.path": "/a", "dataset.1.repeats": "2"}
    assert flat("no mapping") == {}


@pytest.mark.parametrize("width", [60, 78, 118, 198])
@pytest.mark.parametrize("count", [2, 6])
def test_tables_fit_and_every_run_has_its_column(width: int, count: int) -> None:
    config = {"model": "/somewhere/" + "long" * 20}
    runs = [
        Compared(
            Path(f"/r/{'写真' * 12}-{n}"),
            "interrupted",
            123_456,
            4_000_000,
            config={**config, "group." + "x" * 50: f"{n}" * 30},
        )
        for n in range(count)
    ]
    for line in (*difference_lines(runs, width), *(run_lines(runs, METRICS[0], width) if width > 70 else ())):
        assert sum(len(text) for text, _ in line) <= width
    heads = [text.strip() for text, role in difference_lines(runs, width)[0] if "reverse" in role]
    assert heads == list(LETTERS[:count])


def test_a_value_under_the_crosshair_is_the_last_before_it() -> None:
    xs, ys = [10.0, 20.0, 30.0], [1.0, math.nan, 3.0]
    assert value_at(xs, ys, 10.0) == 1.0
    assert value_at(xs, ys, 19.0) == 1.0
    assert math.isnan(value_at(xs, ys, 20.0) or 0.0)
    assert value_at(xs, ys, 31.0) is None
    assert value_at(xs, ys, 9.0) is None
    assert value_at([], [], 1.0) is None

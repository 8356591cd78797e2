"""The GPU panel: what it says of a card that is held back, and how its history is drawn when maximised."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest
from fake_run import GIB, FakeSource, make_hardware, make_history
from hypothesis import given
from hypothesis import strategies as st
from test_dashboard import dashboard, settle, shows
from test_panels import text_of

from acrf_engine.protocol import Device, Hardware, Memory
from acrf_tui.charts.lines import width_of
from acrf_tui.charts.symbols import SYMBOL_SETS
from acrf_tui.panels.gpu_history import columns_of_blocks, device_charts, grid_for, machine_charts, time_window
from acrf_tui.panels.gpu_lines import compact_lines, full_lines, single_line, slowed_role, speed_line

HOT = Device(
    1, "NVIDIA GeForce RTX 4090", 23 * GIB, 24 * GIB, 91, 99, 380.0, 450.0, 1410, 3105, 10_251, 10_501,
    ["too hot", "power limit"],
)  # fmt: skip


def samples(device: Device, count: int = 120) -> list[Hardware]:
    return [Hardware([device], time=1000.0 + n) for n in range(count)]


@pytest.mark.parametrize("rows", [6, 9])
def test_a_card_that_is_too_hot_says_so_in_words_at_any_height(rows: int) -> None:
    text = "\n".join(text_of(row) for row in full_lines(HOT, samples(HOT), 20 * GIB, 44, rows))
    assert re.search(r"slowed:? +too hot, power limit", text)
    assert "1410" in text
    assert "torch peak 20.0 GiB" in text


def test_many_cards_still_name_the_one_that_is_too_hot() -> None:
    for row in (compact_lines(HOT, None, 42)[0], single_line(HOT, 42), single_line(HOT, 60)):
        assert "too hot" in text_of(row)
        assert width_of(row) <= 60
    held = replace(HOT, slowed=["power limit"])  # what many cards always run at: no alarm
    assert "power" not in text_of(single_line(held, 42))
    assert (slowed_role(["power limit"]), slowed_role(["too hot"])) == ("warn", "bold bad")


def test_nothing_reported_is_not_taken_for_nothing_wrong() -> None:
    assert text_of(speed_line(replace(HOT, slowed=None), 44)).endswith("not reported")
    assert text_of(speed_line(replace(HOT, slowed=[]), 44)).endswith("nothing slows it")


@pytest.mark.parametrize("width", [24, 34, 44, 100])
@pytest.mark.parametrize("rows", [6, 9])
def test_rows_of_a_card_have_the_promised_number_and_width(width: int, rows: int) -> None:
    for device in (HOT, Device(0, "X"), make_hardware(1, 3).devices[0]):
        lines = full_lines(device, samples(device), None, width, rows)
        assert len(lines) == rows
        assert all(width_of(row) <= max(width, 30) for row in lines)


@given(st.floats(0, 1e6), st.floats(0, 1e5))
def test_the_last_sample_is_always_inside_the_charts_time(origin: float, passed: float) -> None:
    begin, end = time_window(origin, origin + passed)
    assert begin <= origin + passed <= end + 1e-6
    assert end - begin <= 600.001
    assert begin >= origin - 1e-6


def test_a_new_sample_moves_nothing_that_is_drawn() -> None:
    assert time_window(1000.0, 1080.0) == time_window(1000.0, 1140.0)
    assert time_window(1000.0, 2000.0) == time_window(1000.0, 2049.0)


@given(st.integers(1, 16), st.integers(10, 250), st.integers(1, 70))
def test_a_grid_of_charts_never_leaves_its_panel(blocks: int, width: int, height: int) -> None:
    grid = grid_for(6, blocks, width, height)
    if grid is None:
        return
    device = replace(HOT, index=0)
    history = samples(device, 30)
    charts = device_charts(device, history, 20 * GIB)
    each = max(1, width // grid.columns - 2)
    columns = columns_of_blocks([(device, charts)] * blocks, grid, history, (1000.0, 1075.0), each, height)
    assert len(columns) == grid.columns
    assert len({len(column) for column in columns}) == 1
    assert len(columns[0]) <= height


@pytest.mark.parametrize("symbols", SYMBOL_SETS.values(), ids=SYMBOL_SETS.keys())
def test_history_takes_the_colour_of_its_threshold_and_unreported_values_draw_nothing(symbols: object) -> None:
    cool = replace(HOT, temperature=60)
    history = [*samples(cool, 30), *(replace(one, time=one.time + 30) for one in samples(HOT, 30))]
    grid = grid_for(6, 1, 120, 30)
    assert grid is not None
    charts = device_charts(HOT, history, None)
    columns = columns_of_blocks([(HOT, charts)], grid, history, (1000.0, 1075.0), 50, 30, symbols)
    roles = {role for row in columns[1][2 : 2 + grid.plot] for text, role in row if text.strip()}
    assert {"spark", "bad"} <= roles
    silent = Device(0, "X")
    charts = device_charts(silent, samples(silent), None)
    assert all(math.isnan(value) for chart in charts for value in chart.values)
    assert {chart.text for chart in charts} == {"not reported"}
    columns = columns_of_blocks([(silent, charts)], grid, samples(silent), (1000.0, 1075.0), 50, 30, symbols)
    drawn = "".join(text for column in columns for row in column for text, role in row if role == "spark")
    assert not drawn.strip()


def test_without_a_gpu_the_memory_of_machine_and_worker_is_drawn() -> None:
    past = [make_hardware(0, n) for n in range(20)]
    ram, worker = machine_charts(past[-1], past)
    assert ram.text == "5.1 / 15.6 GiB"
    assert worker.text == "1.2 GiB"
    assert max(worker.values) < worker.high


@pytest.mark.parametrize("gpus", [1, 2, 4, 8])
@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 50)])
async def test_maximised_every_card_shows_all_it_reports(gpus: int, size: tuple[int, int]) -> None:
    source = FakeSource(make_history(20, gpus=gpus))
    async with dashboard(source, size) as (pilot, _):
        source.push(make_hardware(gpus, 1, hot=True), Memory(GIB, 16 * GIB))
        await pilot.press("4", "z")
        await shows(pilot, *(f"{index} RTX 4090" for index in range(gpus - 1)), "too hot")
        if size[0] >= 120:
            words = ["too hot, power", "peak 16.0 GiB", "nothing slows it" if gpus > 1 else "VRAM"]
            await shows(pilot, *words, "SM", "mem", "GiB", "°C", "MHz", " W")


async def test_each_rank_of_a_run_has_its_card_also_on_another_box() -> None:
    sample = make_hardware(2, 1)
    first, second = sample.devices
    cards = [replace(first, rank=1), replace(second, rank=0), replace(first, rank=2, host="box-2", temperature=77)]
    source = FakeSource(make_history(20, gpus=2))
    async with dashboard(source, (200, 50)) as (pilot, _):
        source.push(replace(sample, devices=cards), Memory(GIB, 16 * GIB))
        await shows(pilot, "rank 1 RTX 4090", "rank 0 RTX 4090", "rank 2 box-2", "77 °C")
        await pilot.press("4", "z")
        await shows(pilot, "rank 1 RTX 4090", "rank 0 RTX 4090", "rank 2 box-2", "77 °C")


async def test_ranks_on_the_cpu_show_their_memory() -> None:
    ranks = [{"rank": rank, "host": "box", "pid": 1, "rss": (rank + 1) * GIB} for rank in (0, 1)]
    source = FakeSource(make_history(20, gpus=0))
    async with dashboard(source, (120, 40)) as (pilot, _):
        source.push(replace(make_hardware(0, 30), ranks=ranks))
        await shows(pilot, "rank 0", "1.0 GiB on box", "rank 1", "2.0 GiB on box")


async def test_maximised_without_a_gpu_it_says_why_and_shows_the_memory() -> None:
    source = FakeSource(make_history(20, gpus=0))
    async with dashboard(source) as (pilot, screen):
        source.push(make_hardware(0, 30))
        await pilot.press("4", "z")
        await shows(pilot, "No NVIDIA driver was found", "RAM 5.1 / 15.6 GiB", "worker 1.2 GiB")
        await pilot.press("z")
        await settle(pilot, lambda: screen.maximized is None)
        await shows(pilot, "No NVIDIA driver was found")


async def test_a_sample_of_a_card_over_its_limits_is_coloured() -> None:
    source = FakeSource(make_history(20, gpus=1))
    async with dashboard(source) as (pilot, screen):
        source.push(make_hardware(1, 1, hot=True))
        await shows(pilot, "too hot")
        view = screen.query_one("#gpu-lines")
        assert {role for row in view.lines for text, role in row if "too hot" in text} == {"bold bad"}
        assert {role for row in view.lines for text, role in row if "°C" in text} <= {"warn", "bold bad"}

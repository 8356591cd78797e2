"""What the panels write, without an app."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from fake_run import GIB, START, make_hardware, make_history

from acrf_engine.protocol import Device, Hardware, Progress, StateChanged
from acrf_tui.charts.lines import Line, width_of
from acrf_tui.charts.symbols import ASCII
from acrf_tui.journal import Entry
from acrf_tui.panels import numbers
from acrf_tui.panels.anchors import draws_line, numbers_line
from acrf_tui.panels.gpu_lines import compact_lines, full_lines, heat_role, machine_lines, memory_line, single_line
from acrf_tui.panels.header import banner_lines, next_steps, state_span
from acrf_tui.panels.journal import ICONS, entry_line
from acrf_tui.panels.progress import bar_line, facts, percent_line, phase_lines, squeeze
from acrf_tui.panels.sigma_plot import sigma_axis
from acrf_tui.panels.weight import curve, explain, place, snr, weight
from acrf_tui.printable import printable
from acrf_tui.state import RunState


def text_of(spans: Line) -> str:
    return "".join(text for text, _ in spans)


def loaded(steps: int = 300) -> RunState:
    state = RunState()
    state.load(make_history(steps))
    return state


def test_nan_is_written_as_nan_and_the_unknown_as_a_dash() -> None:
    assert numbers.loss(math.nan) == "NaN"
    assert numbers.loss(math.inf) == "inf"
    assert numbers.duration(math.nan) == numbers.UNKNOWN
    assert numbers.significant(math.nan) == numbers.UNKNOWN
    assert numbers_line(3, math.nan, False)[1] == ("      NaN", "bad")
    assert numbers_line(0, math.nan, False)[1][0].strip() == numbers.UNKNOWN


def test_numbers_keep_their_width() -> None:
    assert numbers.duration(761) == "0:12:41"
    assert numbers.duration(3 * 86400 + 4 * 3600 + 720) == "3 d 04:12"
    assert numbers.remaining(3725) == "1:03:00"
    assert numbers.loss(0.10421) == "0.1042"
    assert numbers.loss(0.000021) == "2.10e-05"
    assert numbers.significant(0.12543) == "0.125"
    assert numbers.gib(17.25 * GIB) == "17.2"


@pytest.mark.parametrize("width", [8, 20, 40, 90])
def test_rows_never_leave_their_width(width: int) -> None:
    state = loaded()
    assert width_of(bar_line(0.312, width, "good")) == width
    assert width_of(percent_line(math.nan)) == width_of(percent_line(1.0)) == 8
    assert width_of(draws_line(0.96, 412, 410.0, width)) <= width
    assert len(sigma_axis(max(12, width))) == max(12, width)
    device = make_hardware(1, 3).devices[0]
    for row in full_lines(device, list(state.hardware_history), 16 * GIB, max(30, width)):
        assert width_of(row) <= max(30, width)
    assert width_of(entry_line(Entry(START, "warning", "long " * 40, 200), max(30, width))) <= max(30, width)


def test_steps_that_do_not_fit_lose_their_separators_and_never_their_digits() -> None:
    assert squeeze("123,456 / 1,000,000", 19) == "123,456 / 1,000,000"
    assert squeeze("123,456 / 1,000,000", 17) == "123,456/1,000,000"
    assert squeeze("123,456 / 1,000,000", 14) == "123456/1000000"
    assert squeeze("123,456 / 1,000,000", 8) == "123,456"


def test_progress_tells_step_speed_and_times() -> None:
    cells = dict(cell for column in facts(loaded(), START + 300 * 0.125) for cell in column)
    assert cells["step"] == "300 / 4,000"
    assert cells["epoch"] == "50.00 / 666.7"
    assert cells["micro-batches"] == "1,200"
    assert cells["s/step"].startswith("0.12")
    assert cells["checkpoint"] == "step 200"


def test_a_phase_before_the_first_step_counts_its_seconds() -> None:
    state = RunState()
    state.apply(StateChanged("caching", 0, 0, seq=1, time=START))
    state.apply(Progress("caching", 12, 24, "photos/012.jpg", seq=2, time=START))
    lines = [text_of(row) for row in phase_lines(state, START + 4.2, 60)]
    assert lines[0].startswith("caching  12 / 24")
    assert lines[0].endswith("4 s")
    assert lines[1] == "photos/012.jpg"


def test_a_gpu_that_reports_little_says_so_and_shows_no_zero() -> None:
    card = Device(0, "NVIDIA GB10", memory_used=int(21.4 * GIB))
    text = "\n".join(text_of(row) for row in full_lines(card, [Hardware([card])], None, 44))
    assert text.count("not reported") == 5
    assert "21.4 GiB used, total not reported" in text
    assert " 0" not in text.replace("GPU 0", "")
    assert "not reported" in text_of(compact_lines(Device(0, "X"), None, 40)[0])
    assert "–" in text_of(single_line(Device(3, "NVIDIA H200"), 40))


def test_heat_and_memory_change_colour_at_their_thresholds() -> None:
    assert [heat_role(t) for t in (None, 64, 80, 88)] == ["muted", "text", "warn", "bold bad"]
    roles = [memory_line("VRAM", int(share * 100), 100, None, 44)[1][1] for share in (0.5, 0.92, 0.98)]
    assert roles == ["meter-fill", "warn", "bad"]


def test_the_torch_peak_is_a_mark_on_the_meter() -> None:
    marked = memory_line("VRAM", 12 * GIB, 24 * GIB, 18 * GIB, 60)
    assert [role for text, role in marked if text == "┃"] == ["meter-mark"]


def test_without_a_gpu_the_note_and_the_ram_are_shown() -> None:
    sample = make_hardware(0, 3)
    lines = [text_of(row) for row in machine_lines(sample, [sample], 44)]
    assert " ".join(lines[:3]).startswith("No NVIDIA driver was found")
    assert any("5.1 / 15.6 GiB" in text for text in lines)
    assert any(text.startswith("worker") and "1.2 GiB" in text for text in lines)


def test_the_weight_is_the_papers() -> None:
    assert weight(0.9, 5.0, "min_snr") == 1.0
    assert weight(0.3, 5.0, "min_snr") == pytest.approx(5.0 / 5.444, rel=1e-3)
    assert weight(0.1, 5.0, "min_snr") == 0.1
    assert weight(0.0, 5.0, "min_snr") == 0.1
    assert weight(1.0, 5.0, "min_snr_plus_one") == 0.1
    assert weight(0.5, 5.0, "min_snr_plus_one") == pytest.approx(0.5)


def test_the_signal_to_noise_ratio_is_the_papers() -> None:
    """The table of section 3.1."""
    found = [snr(t) for t in (0.1, 0.3, 0.5, 0.7, 0.9)]
    assert found == pytest.approx([81.0, 5.44, 1.0, 0.18, 0.012], rel=0.03)
    assert math.isfinite(snr(0.0))
    assert snr(1.0) > 0


def test_gamma_zero_switches_the_weighting_off() -> None:
    assert {weight(sigma, 0.0, "min_snr") for sigma in (0.0, 0.1, 0.9, 1.0)} == {1.0}
    assert "off" in explain(0.0, "min_snr")


@pytest.mark.parametrize("gamma", [1.0, 5.0, 20.0])
def test_the_explanation_of_the_weight_names_the_sigma_where_it_begins(gamma: float) -> None:
    edge = 1 / (1 + math.sqrt(gamma))
    assert f"{edge:.3f}" in explain(gamma, "min_snr")
    assert weight(edge * 1.01, gamma, "min_snr") == 1.0
    assert weight(edge * 0.99, gamma, "min_snr") < 1.0
    plus = [weight(sigma, gamma, "min_snr_plus_one") for sigma in (edge * 0.97, edge, edge * 1.03)]
    assert max(plus) == plus[1]


def test_markers_lie_on_the_curve() -> None:
    rows = curve(5.0, "min_snr", 40, 8)
    for sigma in (0.05, 0.25, 0.28, 0.5, 0.99):
        x, y = place(sigma, weight(sigma, 5.0, "min_snr"), 40, 8)
        near = [rows[row].text[x] for row in range(max(0, y - 1), min(8, y + 2))]
        assert any(char != " " for char in near), sigma


@pytest.mark.parametrize(
    ("state", "error", "wanted"),
    [
        ("finished", "", ["Training finished", "acrf-tui export night --format comfyui"]),
        ("stopped", "", ["a checkpoint is saved", "acrf-tui resume night"]),
        (
            "failed",
            "CUDA out of memory",
            ["Failed: CUDA out of memory", "w  shows the log", "acrf-tui resume night"],
        ),
        ("interrupted", "killed", ["Interrupted: killed", "acrf-tui resume night"]),
    ],
)
def test_an_ended_run_says_what_happened_and_what_to_do(state: str, error: str, wanted: list[str]) -> None:
    run = replace(loaded(10), state=state, error=error)
    happened, commands = next_steps("night", run)
    for part in wanted:
        assert part in "\n".join([happened, *commands])
    for row in banner_lines("night", run, 60):
        assert width_of(row) <= 60


def test_where_there_is_only_ascii_states_and_entries_are_written_in_it() -> None:
    assert state_span("running", ASCII)[0] == " RUNNING "
    for kind in ICONS:
        assert text_of(entry_line(Entry(START, kind, "said", 3), 60, ASCII)).isascii()
    assert text_of(bar_line(0.5, 20, "good", ASCII)).isascii()


@pytest.mark.parametrize("text", ["plain", "\x1b[31mred", "a\tb", "\udc80", "é 😀", "\u202e"])
def test_text_of_others_is_shown_and_never_obeyed(text: str) -> None:
    assert printable(text).isprintable()
    assert printable(text) == text or "\\" in printable(text)
    assert printable("a\nb\x07", keep="\n") == "a\nb\\x07"

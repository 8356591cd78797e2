"""What the terminal cannot show is not sent to it: symbols by locale, and plain ASCII where there is nothing else."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.color import Color

from acrf_engine.config import dump, load_config
from acrf_engine.run.folder import create_run
from acrf_tui.ascii import AsciiOnly, to_ascii
from acrf_tui.shipped import shipped
from acrf_tui.terminal import background_is_light, over_ssh, symbols_name
from tests.e2e.terminal import Terminal


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=40))
def test_ascii_takes_exactly_as_many_cells(text: str) -> None:
    plain = to_ascii(text)
    assert plain.isascii()
    assert cell_len(plain) == cell_len(text)


@pytest.mark.parametrize(
    ("drawn", "plain"),
    [
        ("╭─ 2 Loss ─╮", "+- 2 Loss -+"),
        ("━━╸──", "===--"),
        ("5e-5 → 1e-4", "5e-5 > 1e-4"),
        ("w(σ), γ 5", "w(s), g 5"),
        ("÷ 2  × 2", "/ 2  x 2"),
        ("a name cut …", "a name cut ~"),
        ("Zoë", "Zoe"),
        ("猫", "??"),
        ("⠀⡇⣿", " :#"),
    ],
)
def test_lookalikes_keep_the_meaning(drawn: str, plain: str) -> None:
    assert to_ascii(drawn) == plain


def test_styles_stay_and_control_codes_are_left_alone() -> None:
    style = Style(bold=True)
    segments = [Segment("●", style), Segment("\x1b[1A", None, [(1, 2)])]
    done = AsciiOnly().apply(segments, Color(0, 0, 0))
    assert done[0] == Segment("*", style)
    assert done[1] is segments[1]


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({}, "braille"),
        ({"LANG": "en_GB.UTF-8"}, "braille"),
        ({"LANG": "de_DE.utf8@euro"}, "braille"),
        ({"LANG": "C.UTF-8", "LC_ALL": ""}, "braille"),
        ({"LANG": "en_GB.UTF-8", "LC_ALL": "C"}, "ascii"),
        ({"LC_ALL": "POSIX"}, "ascii"),
        ({"LANG": "en_US.ISO-8859-1"}, "ascii"),
        ({"LANG": "en_US"}, "ascii"),
        ({"LANG": "C.UTF-8", "LC_CTYPE": "C"}, "ascii"),
        ({"LANG": "C.UTF-8", "TERM": "linux"}, "block"),
        ({"LC_ALL": "C", "TERM": "linux"}, "ascii"),
    ],
)
def test_the_locale_chooses_the_symbols(environment: dict[str, str], name: str) -> None:
    assert symbols_name("auto", environment) == name
    assert symbols_name("block", environment) == "block"


def test_a_far_terminal_and_a_light_one_are_known_by_their_variables() -> None:
    assert over_ssh({"SSH_TTY": "/dev/pts/3"})
    assert not over_ssh({"SSH_AUTH_SOCK": "socket"})
    assert background_is_light({"COLORFGBG": "0;15"})
    assert background_is_light({"COLORFGBG": "0;default;15"})
    assert not background_is_light({"COLORFGBG": "15;0"})
    assert not background_is_light({})


def test_with_locale_c_no_byte_above_127_reaches_the_terminal(tmp_path: Path) -> None:
    folder = create_run(tmp_path / "runs", "night", dump(load_config(shipped("sample_configs") / "demo.yaml")))
    status = folder.recorded_status()
    status.state = "finished"
    folder.write_status(status)
    terminal = Terminal(
        [sys.executable, "-m", "acrf_tui.cli", "--runs", str(tmp_path / "runs")],
        LC_ALL="C", LANG="C", XDG_STATE_HOME=str(tmp_path / "s"), XDG_CONFIG_HOME=str(tmp_path / "c"),
    )  # fmt: skip
    terminal.until("paper-defaults", "night", "enter Start")
    terminal.type("T")
    terminal.until("enter keeps")
    terminal.type("\x1b")
    terminal.until_gone("enter keeps")
    terminal.type("y")
    terminal.until("acrf-tui train")
    terminal.type("\t")
    terminal.until("enter looks at it")
    terminal.type("\r")
    terminal.until("Training finished", "z Zoom")
    terminal.type("?")
    terminal.until("esc closes")
    terminal.type("q")
    terminal.until_gone("esc closes")
    terminal.type("q")
    terminal.until("paper-defaults")
    terminal.type("q")
    terminal.wait()
    assert max(terminal.raw) < 128

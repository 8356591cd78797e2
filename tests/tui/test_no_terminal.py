"""The app draws on a terminal only: where any of the three streams is none, it says how to go without."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = [sys.executable, "-m", "acrf_tui.cli"]


@pytest.mark.parametrize("other", ["stdin", "stdout", "stderr"])
def test_one_stream_elsewhere_is_no_terminal(tmp_path: Path, other: str) -> None:
    controller, terminal = pty.openpty()
    try:
        streams: dict[str, int] = dict.fromkeys(("stdin", "stdout", "stderr"), terminal)
        with (tmp_path / "elsewhere").open("w+b") as file:
            streams[other] = file.fileno()
            done = subprocess.run(
                [*PROGRAM, "demo", "--runs", str(tmp_path / "runs")],
                **streams, env={**os.environ, "TERM": "xterm-256color"}, timeout=60,
            )  # fmt: skip
            file.seek(0)
            said = file.read().decode() if other == "stderr" else os.read(controller, 65536).decode()
    finally:
        os.close(terminal)
        os.close(controller)
    assert done.returncode == 2
    assert said.startswith("acrf-tui: this is not a terminal")
    assert "--headless" in said
    assert "\x1b[?1049h" not in said
    assert not (tmp_path / "runs").exists()

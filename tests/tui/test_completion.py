"""Shell completion in a real bash: commands, options, and what is on this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from acrf_engine.config import dump, load_config
from acrf_engine.run.folder import create_run
from acrf_tui.cli import main
from acrf_tui.shipped import shipped

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    programs = tmp_path / "bin"
    programs.mkdir()
    program = programs / "acrf-tui"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m acrf_tui.cli "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    here = tmp_path / "here"
    here.mkdir()
    (here / "mine.yaml").write_text("model: tiny\n")
    (here / "notes.txt").write_text("")
    (here / "sub").mkdir()
    monkeypatch.chdir(here)
    config = dump(load_config(shipped("sample_configs") / "demo.yaml"))
    for name in ("night-one", "night-two", "day"):
        create_run(here / "runs", name, config)
    return tmp_path


def completed(line: str) -> list[str]:
    """What bash offers at the end of `line`."""
    words = line.split(" ")
    script = f"""
        eval "$(acrf-tui completion bash)"
        COMP_LINE={line!r}; COMP_POINT=${{#COMP_LINE}}; COMP_TYPE=9
        COMP_WORDS=({" ".join(map(repr, words))}); COMP_CWORD={len(words) - 1}
        _python_argcomplete acrf-tui {words[-1]!r} {words[-2]!r}
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    return [word.strip() for word in done.stdout.splitlines() if word.strip()]


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("acrf-tui re", {"resume", "replay", "resize"}),
        ("acrf-tui attach night", {"night-one", "night-two"}),
        ("acrf-tui resume --he", {"--help", "--headless"}),
        ("acrf-tui train ", {"mine.yaml", "runs/", "sub/"}),
        ("acrf-tui --theme acrf-l", {"acrf-light"}),
        ("acrf-tui control day p", {"pause", "preview"}),
        ("acrf-tui control day set loss.lambda_c", {"loss.lambda_char=", "loss.lambda_cos="}),
        ("acrf-tui --symbols b", {"braille", "block"}),
        ("acrf-tui export day --format k", {"kohya"}),
    ],
)
def test_bash_offers_what_fits(line: str, offered: set[str]) -> None:
    found = set(completed(line))
    assert offered <= found
    assert "notes.txt" not in found
    if not line.endswith(" "):
        assert found == offered


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("# put into ~/")
    assert "acrf-tui" in printed.splitlines()[-1] or "acrf-tui" in printed

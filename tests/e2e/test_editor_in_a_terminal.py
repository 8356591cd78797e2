"""The config editor in a real terminal: what was typed outlives the app, and a saved copy is there to start."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from acrf_engine.config import load_config
from tests.e2e.terminal import Terminal

PROGRAM = [sys.executable, "-m", "acrf_tui.cli"]
CONFIG = "# mine\nepochs: 40   # enough\nseed: 3\n"


def test_what_was_typed_outlives_a_killed_app_and_is_saved_by_the_next(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(CONFIG)
    here = Path.cwd()
    environment = {f"XDG_{name}_HOME": str(tmp_path / name) for name in ("STATE", "CONFIG", "CACHE")}
    environment["PYTHONPATH"] = str(here)
    os.chdir(tmp_path)
    try:
        app = Terminal(PROGRAM, **environment)
        open_editor(app)
        app.type("/epochs")
        app.until_gone("scheduler")
        app.until_gone("Change")
        app.type("\r")
        app.until("Change")
        app.type("\r65")
        app.until("65", "not saved")
        until_file(app, tmp_path / "STATE" / "acrf-tui" / "drafts")
        app.signal(signal.SIGKILL)
        assert app.wait() == -signal.SIGKILL
        app.close()
        assert (tmp_path / "mine.yaml").read_text() == CONFIG

        app = Terminal(PROGRAM, **environment)
        open_editor(app)
        app.until("Changes from last time")
        app.type("t")
        app.until("epochs: 65", "not saved")
        app.type("\x1bOQ")  # f2
        app.until("saved")
        app.until_gone("not saved")
        app.type("q")
        app.until("Configs", "Runs")
        app.type("q")
        assert app.wait() == 0
        app.close()
    finally:
        os.chdir(here)
    assert (tmp_path / "mine.yaml").read_text() == CONFIG.replace("40 ", "65 ")
    assert load_config(tmp_path / "mine.yaml").epochs == 65


def open_editor(app: Terminal) -> None:
    app.until("Configs", "mine")
    app.type("\x1b[F")  # end: the config of this folder is the last
    app.type("e")
    app.until("Settings", "scheduler", "Form/YAML")


def until_file(app: Terminal, folder: Path) -> None:
    """Read the screen on until there is a file in the folder."""
    for _ in range(100):
        if folder.is_dir() and any(path.suffix == ".json" for path in folder.iterdir()):
            return
        app._read()
    raise AssertionError(f"nothing came into {folder}")

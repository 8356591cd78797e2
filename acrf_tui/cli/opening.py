"""Opening the app from the command line, on a terminal only, and where the runs are."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from acrf_engine.run.folder import RunError, RunFolder, default_runs_dir

WEB_DRIVER = "textual.drivers.web_driver:WebDriver"


def runs_dir_of(args: argparse.Namespace) -> Path:
    """The folder of runs that was asked for, or the default one."""
    given: Path | None = getattr(args, "runs", None)
    return given.absolute() if given else default_runs_dir()


def require_terminal_or_headless(args: argparse.Namespace) -> None:
    """Raises RunError where the app was asked for and cannot be drawn."""
    if args.headless:
        return
    if args.json:
        raise RunError("--json goes with --headless")
    require_terminal()


def require_terminal() -> None:
    """Raises RunError without a terminal on all sides, naming the way to go without one."""
    if os.environ.get("TEXTUAL_DRIVER") == WEB_DRIVER:
        return  # `acrf-tui serve` is the terminal
    # Textual draws on stderr and reads stdin; without a terminal on stdout too, somebody wants the output elsewhere.
    on_terminals = all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr))
    if not on_terminals or os.environ.get("TERM", "dumb") == "dumb":
        raise RunError("this is not a terminal the app can draw on (use `acrf-tui train CONFIG --headless`)")


def open_app(args: argparse.Namespace, folder: RunFolder | None) -> int:
    """Open the app on a run, or at the launchpad. Returns the exit status."""
    require_terminal()
    from acrf_tui import collector

    collector.hold()
    from acrf_tui.app import AppOptions, run_app

    options = AppOptions(
        runs_dir=runs_dir_of(args),
        slow=getattr(args, "slow", False),
        theme=getattr(args, "theme", None),
        mouse=not getattr(args, "no_mouse", False),
        color=getattr(args, "color", "auto"),
        observe=getattr(args, "observe", False),
        symbols=getattr(args, "symbols", None),
    )
    return run_app(options, folder)

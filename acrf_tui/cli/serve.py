"""The command that shows the app in a browser."""

from __future__ import annotations

import argparse
import sys
from importlib.util import find_spec

from acrf_engine.run.folder import RunError
from acrf_tui.cli.opening import runs_dir_of

PORT = 8000
INSTALL = "pip install 'acrf-tui[serve]'"


def serve(args: argparse.Namespace) -> int:
    """Serve the app on the loopback address until ctrl+c."""
    if find_spec("textual_serve") is None:
        raise RunError(f"serve: textual-serve is not installed ({INSTALL})")
    if not 0 <= args.port <= 65535:
        raise RunError(f"serve: --port {args.port}: a port is a number from 0 to 65535")
    from acrf_tui.web import run_server

    return run_server(app_command(args), args.port)


def app_command(args: argparse.Namespace) -> list[str]:
    """The command that draws the app for one browser window, with the options given to `serve`."""
    command = [sys.executable, "-P", "-m", "acrf_tui.cli", "--runs", str(runs_dir_of(args))]
    for option in ("theme", "color"):
        if hasattr(args, option):
            command += [f"--{option}", getattr(args, option)]
    command += ["--slow"] if getattr(args, "slow", False) else []
    command += ["--no-mouse"] if getattr(args, "no_mouse", False) else []
    symbols = getattr(args, "symbols", "auto")
    return [*command, "--symbols", "braille" if symbols == "auto" else symbols]  # a browser knows no locale

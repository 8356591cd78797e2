"""Commands that need torch work in a process of their own; check is one of them."""

from __future__ import annotations

import argparse
import subprocess
import sys

from acrf_tui.cli.opening import runs_dir_of


def check(args: argparse.Namespace) -> int:
    """What a config will do, and whether it can."""
    command = ["check", str(args.config)]
    command += ["--json"] if args.json else []
    for override in args.overrides:
        command += ["--set", override]
    command += [] if args.vram is None else ["--vram", str(args.vram)]
    return run_engine([*command, "--runs", str(runs_dir_of(args))])


def run_engine(command: list[str]) -> int:
    """Run a command that needs torch in a process of its own."""
    from acrf_engine.run.client import supervisor_environment

    done = subprocess.run([sys.executable, "-P", "-m", "acrf_engine", *command], env=supervisor_environment())
    return done.returncode

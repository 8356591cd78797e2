"""Commands that watch and steer runs: attach, runs, control, logs."""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from typing import Any

from acrf_engine.run.folder import RunError, RunFolder, find_run, list_runs
from acrf_tui.cli.opening import open_app, runs_dir_of
from acrf_tui.panels.numbers import age

CONTROL_HINT_S = 10.0


def attach(args: argparse.Namespace) -> int:
    """The app, on a run."""
    folder = find_run(args.run, runs_dir_of(args), elsewhere=args.runs is None)
    return open_app(args, folder)


def runs(args: argparse.Namespace) -> int:
    """List the runs: with `--runs`, those of that folder alone."""
    rows = [_summary(folder) for folder in list_runs(runs_dir_of(args), elsewhere=args.runs is None)]
    if args.json:
        print(json.dumps(rows, indent=1))
        return 0
    if not rows:
        print(f"no runs in {runs_dir_of(args)} (start one with `acrf-tui demo`)")
        return 0
    width = max(len("name"), *(len(row["name"]) for row in rows))
    print(f"{'name':{width}}  {'state':11}  {'step':>15}  {'loss':>8}  {'best':>15}  {'age':>8}  folder")
    for row in rows:
        step = f"{row['step']}/{row['total_steps'] or '?'}"
        loss = f"{row['loss']:.4f}" if row["loss"] is not None else "-"
        best = f"{row['best']['loss']:.4f} @{row['best']['step']}" if row["best"] else "-"
        how_old = age(row["age_s"])
        state = "waiting" if row["waiting"] else row["state"]
        print(f"{row['name']:{width}}  {state:11}  {step:>15}  {loss:>8}  {best:>15}  {how_old:>8}  {row['folder']}")
    return 0


def _summary(folder: RunFolder) -> dict[str, Any]:
    try:
        status = folder.read_status()
    except RunError as error:
        return {
            "name": folder.name, "state": "unreadable", "step": 0, "total_steps": 0, "loss": None, "age_s": 0.0,
            "folder": str(folder.path), "error": str(error), "waiting": None, "best": None,
        }  # fmt: skip
    return {
        "name": folder.name,
        "state": status.state,
        "step": status.step,
        "total_steps": status.total_steps,
        "loss": status.loss,
        "age_s": max(0.0, time.time() - status.created),
        "folder": str(folder.path),
        "error": status.error,
        "waiting": status.waiting or None,
        "best": status.best,
    }


def control(args: argparse.Namespace) -> int:
    """Send one command to a run and print what it did."""
    from acrf_engine.run.client import Run

    folder = find_run(args.run, runs_dir_of(args))
    extra: dict[str, Any] = {}
    if args.name == "set":
        key, separator, value = (args.setting or "").partition("=")
        if not separator:
            raise RunError("control RUN set: expected KEY=VALUE, such as learning_rate=5e-5")
        extra = {"key": key.strip(), "value": value.strip()}
        if args.ramp:
            extra["ramp"] = args.ramp
    elif args.setting:
        raise RunError(f"control RUN {args.name}: takes no value, got {args.setting!r}")
    patience = threading.Timer(CONTROL_HINT_S, _say_control_waits, (folder, args.name))
    patience.daemon = True
    patience.start()
    try:
        ack = Run(folder).command(args.name, **extra)
    except ConnectionError as error:
        print(f"acrf-tui: refused: {error}", file=sys.stderr)
        return 1
    finally:
        patience.cancel()
    print(f"{'done' if ack.ok else 'refused'} at step {ack.step}: {ack.message}")
    return 0 if ack.ok else 1


def _say_control_waits(folder: RunFolder, command: str) -> None:
    print(
        f"acrf-tui: {command} takes effect at the run's next step; still waiting "
        f"(`acrf-tui logs {folder.name}` shows what it does, ctrl+c stops waiting)",
        file=sys.stderr,
    )


def logs(args: argparse.Namespace) -> int:
    """Print the worker's log."""
    folder = find_run(args.run, runs_dir_of(args))
    if not folder.log.exists():
        raise RunError(f"run {folder.name} has no log yet")
    with folder.log.open(encoding="utf-8", errors="replace") as log:
        while True:
            active = args.follow and folder.read_status().active
            for line in log:
                sys.stdout.write(line)
            sys.stdout.flush()
            if not active:
                return 0
            time.sleep(0.25)

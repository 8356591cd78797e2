"""The command for the line of runs that wait for a device."""

from __future__ import annotations

import argparse
import json

from acrf_engine.run.folder import RunError, find_run
from acrf_tui.cli.opening import runs_dir_of


def queue(args: argparse.Namespace) -> int:
    """Show the line, or move or cancel a run in it."""
    from acrf_engine.run import waiting
    from acrf_engine.run.client import Run

    if args.run is not None:
        folder = find_run(args.run, runs_dir_of(args))
        if not folder.read_status().waiting:
            raise RunError(f"run {folder.name} does not wait in the line (see `acrf-tui queue`)")
        if args.cancel:
            try:
                print(Run(folder).command("stop").message)
            except ConnectionError as error:
                raise RunError(str(error)) from None
        elif args.to is not None:
            print(f"run {folder.name} is number {waiting.move(folder, args.to)} in the line")
        else:
            print(folder.read_status().waiting)
        return 0
    if args.to is not None or args.cancel:
        raise RunError("queue: name the run to move or cancel, such as `acrf-tui queue RUN --to 1`")
    places = waiting.places()
    if args.json:
        rows = [{"run": p.run, "name": p.name, "wanted": p.wanted, "using": p.using or None} for p in places]
        print(json.dumps(rows, indent=1))
        return 0
    for place in places:
        if place.using:
            print(f"uses {place.using:>12}  {place.name}")
    for number, place in enumerate((place for place in places if not place.using), start=1):
        print(f"waits {number:>11}  {place.name}")
    if not places:
        print("no run uses or waits for a device")
    return 0

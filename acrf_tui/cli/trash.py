"""The command for deleted runs and configs."""

from __future__ import annotations

import argparse
import time

from acrf_engine.run.folder import RunError
from acrf_engine.run.trash import Trashed, empty, restore, size_of, trash_folders, trashed
from acrf_tui.cli.opening import runs_dir_of
from acrf_tui.panels.numbers import age
from acrf_tui.printable import printable


def trash(args: argparse.Namespace) -> int:
    """List what was deleted, bring one of it back, or delete all of it for good."""
    items = trashed(trash_folders(runs_dir_of(args)))
    if args.restore is not None:
        print(f"restored {restore(_named(items, args.restore))}")
        return 0
    if args.empty:
        failed = empty(items)
        if failed:
            raise RunError("\n".join(failed))
        print(f"deleted {len(items)} for good")
        return 0
    if not items:
        print("the trash is empty")
        return 0
    width = max(len(printable(item.name)) for item in items)
    print(f"{'name':{width}}  {'deleted':>10}  {'size':>10}  from")
    for item in items:
        deleted = age(time.time() - item.when)
        size = f"{size_of(item.path) / 1e6:,.1f} MB"
        print(f"{printable(item.name):{width}}  {deleted:>10}  {size:>10}  {printable(str(item.origin.parent))}")
    return 0


def _named(items: list[Trashed], name: str) -> Trashed:
    found = next((item for item in items if item.name == name), None)  # the newest of that name
    if found is None:
        known = ", ".join(dict.fromkeys(item.name for item in items)) or "it is empty"
        raise RunError(f"there is no {name} in the trash ({known})")
    return found

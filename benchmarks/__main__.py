"""Run benchmarks and print one table: `python -m benchmarks` for all, `python -m benchmarks app` for one."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from benchmarks.table import PAGE, RESULTS, kept, page, printed, results_file

NAMES = ("app", "supervisor", "engine", "data")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--quick", action="store_true", help="a short look: figures that prove nothing, in two minutes")
    parser.add_argument("--out", type=Path, help="also write the rows as JSON")
    parser.add_argument("--record", action="store_true", help="keep the rows in benchmarks/results, and write the page")
    args = parser.parse_args()
    if args.quick and args.record:
        parser.error("--quick proves nothing: it cannot be recorded")
    if unknown := sorted(set(args.names) - set(NAMES)):
        parser.error(f"there is no benchmark {unknown[0]!r} (known: {', '.join(NAMES)})")
    everything = []
    for name in args.names or NAMES:
        rows = []
        for row in importlib.import_module(f"benchmarks.{name}").measure(args.quick):
            rows.append(row)
            print(printed(row), flush=True)
        everything += rows
        if args.record:
            results_file(name).write_text(kept(rows), encoding="utf-8")
            PAGE.write_text(page(list(RESULTS.glob("*.json"))), encoding="utf-8")
    if args.out:
        args.out.write_text(kept(everything), encoding="utf-8")
    return 0 if all(row["ok"] for row in everything) else 1


if __name__ == "__main__":
    sys.exit(main())

"""Run benchmarks and print one table: `python -m benchmarks` for all, `python -m benchmarks app` for one."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from benchmarks.table import PAGE, RESULTS, completed, gpu_of, kept, page, printed, results_file

NAMES = ("app", "supervisor", "start", "engine", "data")
MATRIX = "gpu"
"""Only where it is asked for: it takes long, and a GPU."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join((*NAMES, MATRIX)))
    parser.add_argument("--quick", action="store_true", help="a short look: figures that prove nothing, in two minutes")
    parser.add_argument("--out", type=Path, help="also write the rows as JSON")
    parser.add_argument("--record", action="store_true", help="keep the rows in benchmarks/results, and write the page")
    parser.add_argument("--tiny", action="store_true", help=f"{MATRIX}: on the tiny model, also without a GPU")
    parser.add_argument("--only", default="", metavar="TEXT", help=f"{MATRIX}: the cells whose name holds it")
    args = parser.parse_args()
    if args.tiny and args.record:
        parser.error("--tiny shows that the cells work: it cannot be recorded")
    if (args.tiny or args.only) and args.names != [MATRIX]:
        parser.error(f"--tiny and --only are for {MATRIX!r} alone")
    if args.quick and args.record:
        parser.error("--quick proves nothing: it cannot be recorded")
    if unknown := sorted(set(args.names) - {*NAMES, MATRIX}):
        parser.error(f"there is no benchmark {unknown[0]!r} (known: {', '.join((*NAMES, MATRIX))})")
    everything = []
    for name in args.names or NAMES:
        rows = []
        matrix = {"tiny": args.tiny, "only": args.only} if name == MATRIX else {}
        for row in importlib.import_module(f"benchmarks.{name}").measure(args.quick, **matrix):
            rows.append(row)
            print(printed(row), flush=True)
        everything += rows
        if args.record:
            file = results_file(name, gpu_of(rows))
            file.write_text(kept(completed(file, rows) if name == MATRIX else rows), encoding="utf-8")
            PAGE.write_text(page(list(RESULTS.glob("*.json"))), encoding="utf-8")
    if args.out:
        args.out.write_text(kept(everything), encoding="utf-8")
    return 0 if all(row["ok"] for row in everything) else 1


if __name__ == "__main__":
    sys.exit(main())

"""Run benchmarks and print one table: `python -m benchmarks` for all, `python -m benchmarks engine` for one."""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import sys
import time
from pathlib import Path

NAMES = ("engine", "data", "supervisor")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--out", type=Path, help="also write the rows as JSON")
    args = parser.parse_args()
    rows = []
    for name in args.names or NAMES:
        for row in importlib.import_module(f"benchmarks.{name}").measure():
            rows.append(row)
            verdict = "ok" if row["ok"] else "OVER"
            print(f"{row['what']:58} {row['measured']:>24}   bound {row['bound']:<14} {verdict}", flush=True)
    if args.out:
        machine = {"python": platform.python_version(), "machine": platform.machine(), "time": time.time()}
        args.out.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    return 0 if all(row["ok"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())

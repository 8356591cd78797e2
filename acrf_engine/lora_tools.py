"""Commands of the engine on LoRA files (export, merge, resize), and import of other trainers' configs.

Each is started as `python -P -m acrf_engine merge ...`.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

FORMATS = ("diffusers", "comfyui", "kohya")


def add_parsers(tools: Any) -> None:
    """Add the commands to a parser's `add_subparsers()`."""
    exporting = tools.add_parser("export")
    exporting.add_argument("lora", type=Path)
    exporting.add_argument("--format", choices=FORMATS, default="diffusers")
    exporting.add_argument("--model", default="")
    exporting.add_argument("--out", type=Path, required=True)
    exporting.set_defaults(handler=_export)

    merging = tools.add_parser("merge")
    merging.add_argument("lora", type=Path)
    merging.add_argument("--model", required=True)
    merging.add_argument("--scale", type=float, default=1.0)
    merging.add_argument("--out", type=Path, required=True)
    merging.set_defaults(handler=_merge)

    resizing = tools.add_parser("resize")
    resizing.add_argument("lora", type=Path)
    resizing.add_argument("--rank", type=int, required=True)
    resizing.add_argument("--out", type=Path, required=True)
    resizing.add_argument("--json", action="store_true")
    resizing.set_defaults(handler=_resize)

    importing = tools.add_parser("import")
    importing.add_argument("file", type=Path)
    importing.add_argument("--out", type=Path)
    importing.set_defaults(handler=_import)


def _export(args: argparse.Namespace) -> int:
    from acrf_engine.model.export import export

    count = export(args.lora, args.format, args.out, args.model)
    print(f"{args.out}: {count} modules, {args.format} format")
    return 0


def _merge(args: argparse.Namespace) -> int:
    from acrf_engine.model.merge import merge

    print("\n".join(merge(args.lora, args.model, args.scale, args.out).lines()))
    return 0


def _resize(args: argparse.Namespace) -> int:
    from acrf_engine.model.errors import LoraError
    from acrf_engine.model.resize import resize

    if args.rank < 1:
        raise LoraError(f"--rank {args.rank}: expected 1 or more")
    resized = resize(args.lora, args.rank, args.out)
    report = json.dumps(asdict(resized), indent=1) if args.json else "\n".join(resized.lines())
    print(report if args.json else f"{args.out}: {report}")
    return 0


def _import(args: argparse.Namespace) -> int:
    from acrf_engine.translation.source import translate
    from acrf_engine.translation.writing import config_text, left_out_lines
    from acrf_engine.yaml_source import ConfigError

    ledger = translate(args.file)
    text = config_text(ledger, args.file)
    if args.out is None:
        print(text, end="")
    else:
        try:
            args.out.parent.mkdir(parents=True, exist_ok=True)
            with args.out.open("x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError:
            raise ConfigError(f"{args.out}: is there already (choose another --out)") from None
        except OSError as error:
            raise ConfigError(f"{args.out}: cannot be written ({error.strerror})") from None
    counts = f"{len(ledger.ours)} settings of {ledger.trainer} taken over, {len(ledger.left_out)} keys not"
    if args.out is None:
        print(f"acrf-tui: {args.file}: {counts} (listed at the end)", file=sys.stderr)
        return 0
    print(f"{args.out}: {counts}")
    for line in [f"to know: {note}" for note in ledger.notes] + left_out_lines(ledger):
        print(f"  {line}")
    return 0

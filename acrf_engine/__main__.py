"""The engine on its own: `python -m acrf_engine CONFIG` trains without the app.

The command line of `acrf-tui` starts what needs torch through here, as `python -P -m acrf_engine check ...`.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path

from acrf_engine import lora_tools
from acrf_engine.config import absolute, dump, load_config
from acrf_engine.run.changes import changed_keys
from acrf_engine.run.folder import RunError, RunFolder, create_run, default_runs_dir, fresh_name
from acrf_engine.run.ranks import Seat, seat, started_alone
from acrf_engine.run.resuming import prepare_resume
from acrf_engine.yaml_source import ConfigError, load_file

TOOLS = ("check", "preview", "export", "merge", "resize", "import")


def main(argv: list[str]) -> int:
    try:
        if argv and argv[0] in TOOLS:
            return _tool(argv)
        return _train(argv)
    except (ConfigError, RunError) as error:
        print(f"acrf-tui: {error}", file=sys.stderr)
        return 2
    except Exception as error:
        if type(error).__name__ not in ("DataError", "PictureError", "ModelError", "LoraError", "TargetsError"):
            raise
        print(f"acrf-tui: {error}", file=sys.stderr)
        return 2


def _train(argv: list[str]) -> int:
    from acrf_engine.run.headless import train_headless

    parser = argparse.ArgumentParser(prog="python -m acrf_engine", description="Train without the app.")
    parser.add_argument("config", type=Path)
    parser.add_argument("--runs", type=Path, metavar="DIR")
    parser.add_argument("--name")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    parser.add_argument("--resume", action="store_true", help="go on with the run of that --name, where there is one")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    if args.resume and not args.name:
        parser.error("--resume needs the --name of the run")
    own = seat()
    if started_alone():
        raise RunError(
            "accelerate launch was asked for several processes and has started one, as it does with --cpu or without "
            "GPUs (give it --multi_gpu and no --cpu, which starts them on a CPU too, or use torchrun)"
        )
    overrides = _of_launcher(args.config, args.overrides, own)
    if own is not None and own.rank > 0:
        from acrf_engine.training import follower

        follower.main(own, config=load_config(args.config, overrides))
    config = absolute(load_config(args.config, overrides), args.config)
    runs_dir = args.runs.absolute() if args.runs else default_runs_dir()
    name = args.name or fresh_name(runs_dir, args.config.stem)
    if args.resume and (runs_dir / name / "status.json").exists():
        folder = RunFolder(runs_dir / name)
        changed = changed_keys(load_config(folder.config), config)
        if changed:
            raise RunError(f"run {name} began with another {', '.join(changed)} (give another --name)")
        prepare_resume(folder, [f"distributed.num_processes={config.distributed.num_processes}"])
    else:
        folder = create_run(runs_dir, name, dump(config), config.steps or 0)
    return train_headless(folder, args.json, seated=own is not None)


def _of_launcher(path: Path, overrides: list[str], own: Seat | None) -> list[str]:
    """The overrides, with the number of processes that `accelerate launch` or another launcher has started."""
    if own is None:
        return overrides
    wanted = load_config(path, overrides).distributed.num_processes if _names_processes(path, overrides) else own.count
    if wanted != own.count:
        raise ConfigError(
            f"{path}: distributed.num_processes: it is {wanted}, and the launcher has started {own.count} "
            "(leave it out, or start as many)"
        )
    return [*overrides, f"distributed.num_processes={own.count}"]


def _names_processes(path: Path, overrides: list[str]) -> bool:
    given = load_file(path)[0].get("distributed")
    in_file = isinstance(given, dict) and "num_processes" in given
    return in_file or any(override.startswith("distributed.num_processes=") for override in overrides)


def _tool(argv: list[str]) -> int:
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns of CPU kernels that are not installed
    parser = argparse.ArgumentParser(prog="python -m acrf_engine")
    tools = parser.add_subparsers(dest="tool", required=True)
    checking = tools.add_parser("check")
    checking.add_argument("config", type=Path)
    checking.add_argument("--json", action="store_true")
    checking.add_argument("--set", action="append", default=[], dest="overrides")
    checking.add_argument("--runs", type=Path)
    checking.add_argument("--vram", type=float, metavar="GIB")
    drawing = tools.add_parser("preview")
    drawing.add_argument("lora", type=Path)
    drawing.add_argument("--model", required=True)
    drawing.add_argument("--transformer", default="")
    drawing.add_argument("--prompt", required=True)
    drawing.add_argument("--steps", type=_between(1, 100), default=8)
    drawing.add_argument("--seed", type=_between(0, 2**63 - 1), default=42)
    drawing.add_argument("--size", type=_between(32, 4096, 16))
    drawing.add_argument("--out", type=Path, required=True)
    lora_tools.add_parsers(tools)
    args = parser.parse_args(argv)
    match args.tool:
        case "check":
            return _check(args)
        case "preview":
            from acrf_engine.model.layout import Checkpoint
            from acrf_engine.preview.picture import draw

            with contextlib.redirect_stdout(sys.stderr):  # libraries talk while they load
                checkpoint = Checkpoint(args.model, args.transformer)
                draw(checkpoint, args.lora, args.prompt, args.out, args.steps, args.seed, args.size)
            print(args.out)
        case _:
            handler: Callable[[argparse.Namespace], int] = args.handler
            return handler(args)
    return 0


def _between(low: int, high: int, step: int = 1) -> Callable[[str], int]:
    """A whole number of the command line, checked where it is read."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected a whole number, got {text!r}") from None
        if not low <= value <= high or value % step:
            of = f", a multiple of {step}" if step > 1 else ""
            raise argparse.ArgumentTypeError(f"expected {low} to {high}{of}, got {value}")
        return value

    return parse


def _check(args: argparse.Namespace) -> int:
    from acrf_engine.check import check, lines

    card = [] if args.vram is None else [f"memory.vram={args.vram}"]
    config = absolute(load_config(args.config, [*args.overrides, *card]), args.config)
    report = check(config, str(args.config), args.runs.absolute() if args.runs else default_runs_dir())
    print(json.dumps(dataclasses.asdict(report), indent=1) if args.json else "\n".join(lines(report)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Commands on LoRA files: preview, inspect, export, merge, resize; and import of other trainers' configs.

What needs torch works in a process of its own.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acrf_engine.run.folder import RunError, find_run
from acrf_tui.cli.engine import run_engine
from acrf_tui.cli.opening import runs_dir_of


def add_parsers(commands: Any) -> None:
    """Add the commands to the parser's `add_subparsers()`; `handler` of each returns the exit status."""
    inspecting = commands.add_parser("inspect", help="what a LoRA file is, whoever wrote it")
    inspecting.add_argument("file", type=Path)
    inspecting.add_argument("--json", action="store_true", help="everything, as one JSON object")
    inspecting.set_defaults(handler=inspect)

    exporting = _on_a_lora(commands, "export", "write a run's newest LoRA, or a LoRA file, in another format")
    exporting.add_argument("--format", choices=("diffusers", "comfyui", "kohya"), default="diffusers")
    exporting.add_argument("--model", help="the base model, for a DoRA in ComfyUI format (default: what it names)")
    exporting.add_argument("--out", type=Path, required=True, metavar="FILE")
    exporting.set_defaults(handler=export)

    merging = _on_a_lora(commands, "merge", "write the base model with a LoRA merged into its weights")
    merging.add_argument("--model", metavar="DIR", help="the base model (default: what the run or the file names)")
    merging.add_argument("--scale", type=float, default=1.0, metavar="S", help="strength (default %(default)s)")
    merging.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder, in diffusers layout")
    merging.set_defaults(handler=merge)

    resizing = _on_a_lora(commands, "resize", "write a LoRA at another rank: the nearest one, by singular values")
    resizing.add_argument("--rank", type=int, required=True, metavar="N")
    resizing.add_argument("--out", type=Path, required=True, metavar="FILE")
    resizing.add_argument("--json", action="store_true", help="the energy kept in each module, as JSON")
    resizing.set_defaults(handler=resize)

    importing = commands.add_parser(
        "import", help="read a config of kohya, ai-toolkit, OneTrainer or None trainer; list what has no counterpart"
    )
    importing.add_argument("file", type=Path)
    importing.add_argument("--out", type=Path, metavar="FILE", help="where to write the config (default: stdout)")
    importing.set_defaults(handler=import_config)


def preview(args: argparse.Namespace) -> int:
    """Draw one picture."""
    lora = lora_of(args)
    command = ["preview", str(lora.path), "--model", lora.model, "--prompt", args.prompt, "--out", str(args.out)]
    command += ["--steps", str(args.steps or lora.steps), "--seed", str(args.seed)]
    command += ["--transformer", lora.transformer] if lora.transformer else []
    return run_engine(command + (["--size", str(args.size)] if args.size else []))


def inspect(args: argparse.Namespace) -> int:
    """What a LoRA file is; read without torch."""
    from acrf_engine.run.lora_report import look, report_json, rows

    report = look(args.file)
    if args.json:
        print(report_json(report))
        return 0
    lines = rows(report)
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        print(f"{name:>{width}}  {value}")
    return 0


def export(args: argparse.Namespace) -> int:
    """Write a LoRA in another format."""
    lora = lora_of(args, need_model=False)
    command = ["export", str(lora.path), "--format", args.format, "--out", str(args.out)]
    whole = lora.model and not lora.transformer
    return run_engine(command + (["--model", lora.model] if whole else []))


def merge(args: argparse.Namespace) -> int:
    """Write base + LoRA."""
    lora = lora_of(args)
    if lora.transformer:
        raise RunError(
            f"run {args.target} was trained on base.transformer {lora.transformer}, and merge reads whole folders "
            "(give --model DIR, a folder in diffusers layout that has these weights)"
        )
    return run_engine(["merge", str(lora.path), "--model", lora.model, f"--scale={args.scale}", "--out", str(args.out)])


def resize(args: argparse.Namespace) -> int:
    """Write a LoRA of another rank."""
    lora = lora_of(args, need_model=False)
    command = ["resize", str(lora.path), f"--rank={args.rank}", "--out", str(args.out)]
    return run_engine(command + (["--json"] if args.json else []))


def import_config(args: argparse.Namespace) -> int:
    """Read another trainer's config."""
    return run_engine(["import", str(args.file), *(["--out", str(args.out)] if args.out else [])])


@dataclass(frozen=True)
class Lora:
    """A LoRA file and what it was trained on: a model, and the file in the place of its transformer, if any."""

    path: Path
    model: str
    transformer: str = ""
    steps: int = 8
    """Of a preview."""


def lora_of(args: argparse.Namespace, *, need_model: bool = True) -> Lora:
    """The LoRA of a run or of a file; `--model` takes the place of what it was trained on. Raises RunError."""
    from acrf_engine.config import load_config
    from acrf_engine.run.lora_files import metadata_of, newest_lora

    path, given = Path(args.target), getattr(args, "model", None)
    if path.is_file():
        model = given or metadata_of(path).get("ss_sd_model_name", "")
        if need_model and not model:
            raise RunError(f"{path}: its metadata names no base model (give --model)")
        return Lora(path, model)
    if path.suffix == ".safetensors":
        raise RunError(f"{path}: there is no such file")
    folder = find_run(args.target, runs_dir_of(args))
    config = load_config(folder.config)
    transformer = "" if given else config.base.transformer
    return Lora(newest_lora(folder), given or config.model, transformer, config.preview.steps)


def _on_a_lora(commands: Any, name: str, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text)
    parser.add_argument("target", metavar="RUN|LORA")
    # SUPPRESS: an option before the command must not be overwritten by the command's default.
    parser.add_argument("--runs", type=Path, metavar="DIR", default=argparse.SUPPRESS, help="where runs are")
    return parser

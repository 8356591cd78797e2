"""Commands about configs and LoRA files: check, preview, export, inspect. Torch works in a process of its own."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from acrf_engine.run.folder import RunError, find_run
from acrf_tui.cli.opening import runs_dir_of


def check(args: argparse.Namespace) -> int:
    """What a config will do, and whether it can."""
    command = ["check", str(args.config)]
    command += ["--json"] if args.json else []
    for override in args.overrides:
        command += ["--set", override]
    return _engine([*command, "--runs", str(runs_dir_of(args))])


def preview(args: argparse.Namespace) -> int:
    """Draw one picture."""
    lora, model, steps = _lora_of(args)
    command = ["preview", str(lora), "--model", model, "--prompt", args.prompt, "--out", str(args.out)]
    command += ["--steps", str(args.steps or steps), "--seed", str(args.seed)]
    return _engine(command + (["--size", str(args.size)] if args.size else []))


def export(args: argparse.Namespace) -> int:
    """Write a LoRA in another format."""
    lora, _, _ = _lora_of(args, need_model=False)
    return _engine(["export", str(lora), "--format", args.format, "--out", str(args.out)])


def inspect(args: argparse.Namespace) -> int:
    """What a LoRA file says about itself."""
    from acrf_engine.run.lora_files import describe

    rows = describe(args.file)
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:>{width}}  {value}")
    return 0


def _lora_of(args: argparse.Namespace, *, need_model: bool = True) -> tuple[Path, str, int]:
    """The LoRA file, its base model and preview steps, of a run or of a file."""
    from acrf_engine.config import load_config
    from acrf_engine.run.lora_files import metadata_of, newest_lora

    path = Path(args.target)
    if path.is_file():
        model = getattr(args, "model", None) or metadata_of(path).get("ss_sd_model_name", "")
        if need_model and not model:
            raise RunError(f"{path}: its metadata names no base model (give --model)")
        return path, model, 8
    if path.suffix == ".safetensors":
        raise RunError(f"{path}: there is no such file")
    folder = find_run(args.target, runs_dir_of(args))
    config = load_config(folder.config)
    return newest_lora(folder), getattr(args, "model", None) or config.model, config.preview.steps


def _engine(command: list[str]) -> int:
    """Run a command that needs torch in a process of its own."""
    from acrf_engine.run.client import supervisor_environment

    done = subprocess.run([sys.executable, "-P", "-m", "acrf_engine", *command], env=supervisor_environment())
    return done.returncode

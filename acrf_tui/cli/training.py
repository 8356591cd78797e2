"""Commands that train: demo, train, resume, replay, and the launchpad, where one chooses."""

from __future__ import annotations

import argparse
from pathlib import Path

from acrf_engine.run.folder import RunFolder, create_run, find_run, fresh_name
from acrf_tui.cli.opening import open_app, require_terminal_or_headless, runs_dir_of
from acrf_tui.shipped import shipped

DEMO_CONFIG = "demo.yaml"


def launchpad(args: argparse.Namespace) -> int:
    """The app, at the launchpad."""
    return open_app(args, None)


def demo(args: argparse.Namespace) -> int:
    """A run of the demo config."""
    return _start(args, shipped("sample_configs") / DEMO_CONFIG, "demo")


def train(args: argparse.Namespace) -> int:
    """A run of a config."""
    return _start(args, args.config, args.config.stem)


def _start(args: argparse.Namespace, config_path: Path, stem: str) -> int:
    from acrf_engine.config import absolute, dump, load_config

    require_terminal_or_headless(args)
    overrides = list(args.overrides)
    if args.steps is not None:
        overrides.append(f"steps={args.steps}")
    config = absolute(load_config(config_path, overrides), config_path)
    runs_dir = runs_dir_of(args)
    if config_path.name == "config.yaml" and (config_path.parent / "status.json").exists():
        stem = config_path.absolute().parent.name  # the config of a run folder: repeat that run
    folder = create_run(runs_dir, args.name or fresh_name(runs_dir, stem), dump(config), config.steps or 0)
    return _go(args, folder)


def resume(args: argparse.Namespace) -> int:
    """Continue or extend a run."""
    from acrf_engine.run.resuming import prepare_resume

    require_terminal_or_headless(args)
    folder = find_run(args.run, runs_dir_of(args))
    prepare_resume(folder, args.overrides, steps=args.steps, epochs=args.epochs)
    return _go(args, folder)


def replay(args: argparse.Namespace) -> int:
    """Repeat an ended run."""
    from acrf_engine.run.replay import create_replay

    require_terminal_or_headless(args)
    runs_dir = runs_dir_of(args)
    return _go(args, create_replay(find_run(args.run, runs_dir), runs_dir, args.name))


def _go(args: argparse.Namespace, folder: RunFolder) -> int:
    if args.headless:
        from acrf_engine.run.headless import train_headless

        return train_headless(folder, args.json, args.when_busy)
    from acrf_engine.run.client import launch

    launch(folder, args.when_busy).close()
    return open_app(args, folder)

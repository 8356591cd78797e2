"""The command line: parses, finds runs and configs, starts what is asked; imports nothing heavy until needed."""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from acrf_engine import __version__
from acrf_engine.run.folder import RunError, RunFolder, create_run, default_runs_dir, find_run, fresh_name, list_runs
from acrf_tui import lora_commands
from acrf_tui.shipped import shipped

DEMO_CONFIG = "demo.yaml"
CONTROL_HINT_S = 10.0


def main(argv: list[str] | None = None) -> int:
    """Entry point of `acrf-tui`. Returns the exit status."""
    arguments = sys.argv[1:] if argv is None else argv
    args = _parser().parse_args(arguments)
    handler: Callable[[argparse.Namespace], int] = args.handler
    try:
        return handler(args)
    except RunError as error:
        return _complain(str(error))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if type(error).__name__ != "ConfigError":
            raise
        return _complain(str(error))


def _complain(message: str) -> int:
    for line in message.splitlines():
        print(f"acrf-tui: {line}", file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="acrf-tui",
        description="Train Z-Image-Turbo LoRAs with AC-RF in the terminal. Without a command: the launchpad.",
    )
    parser.add_argument("--version", action="version", version=f"acrf-tui {__version__}")
    _app_options(parser)
    parser.add_argument("--runs", type=Path, metavar="DIR", help="where runs are (default ./runs, or ACRF_RUNS)")
    parser.set_defaults(handler=_launchpad)
    commands = parser.add_subparsers(metavar="COMMAND")

    demo = commands.add_parser("demo", help="train the built-in tiny model: no download, no GPU, real training")
    _training_options(demo)
    demo.set_defaults(handler=_demo)

    train = commands.add_parser("train", help="start a run of a config")
    train.add_argument("config", type=Path)
    _training_options(train)
    train.set_defaults(handler=_train)

    resume = commands.add_parser(
        "resume", help="continue a stopped, failed or interrupted run, or extend a finished one"
    )
    resume.add_argument("run")
    _training_options(resume, name=False)
    resume.add_argument("--epochs", type=int, metavar="N", help="extend to this many epochs, instead of --steps")
    resume.set_defaults(handler=_resume)

    attach = commands.add_parser("attach", help="watch and steer a run that is going on, or look at an ended one")
    attach.add_argument("run", nargs="?")
    attach.add_argument("--observe", action="store_true", help="look only, send no command")
    _runs_option(attach)
    _app_options(attach)
    attach.set_defaults(handler=_attach)

    runs = commands.add_parser("runs", help="list runs")
    runs.add_argument("--json", action="store_true")
    _runs_option(runs)
    runs.set_defaults(handler=_runs)

    control = commands.add_parser("control", help="send a command to a run and print what it did")
    control.add_argument("run")
    control.add_argument(
        "name", choices=("pause", "resume", "checkpoint", "preview", "stop", "free-vram", "reload", "set")
    )
    control.add_argument("setting", nargs="?", metavar="KEY=VALUE")
    control.add_argument("--ramp", type=int, default=0, metavar="N", help="with set learning_rate: over N steps")
    _runs_option(control)
    control.set_defaults(handler=_control)

    queue = commands.add_parser("queue", help="the line for the GPU: who uses it, who waits; move or cancel a run")
    queue.add_argument("run", nargs="?", help="a waiting run")
    change = queue.add_mutually_exclusive_group()
    change.add_argument("--to", type=int, metavar="N", help="make RUN the Nth of those that wait")
    change.add_argument("--cancel", action="store_true", help="take RUN out of the line; it can be resumed later")
    queue.add_argument("--json", action="store_true")
    _runs_option(queue)
    queue.set_defaults(handler=_queue)

    logs = commands.add_parser("logs", help="the worker's log")
    logs.add_argument("run")
    logs.add_argument("-f", "--follow", action="store_true", help="go on printing until the run ends")
    _runs_option(logs)
    logs.set_defaults(handler=_logs)

    replay = commands.add_parser("replay", help="repeat an ended run from its config and journal, to the same weights")
    replay.add_argument("run")
    replay.add_argument("--headless", action="store_true", help="no app: progress lines on stderr")
    replay.add_argument("--json", action="store_true", help="with --headless: one JSON object per event on stdout")
    replay.add_argument("--name", help="the new run's name")
    _device_options(replay)
    _runs_option(replay)
    _app_options(replay)
    replay.set_defaults(handler=_replay)

    check = commands.add_parser("check", help="what a config will do and whether it can; trains nothing")
    check.add_argument("config", type=Path)
    check.add_argument("--json", action="store_true")
    check.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    _runs_option(check)
    check.set_defaults(handler=_check)

    preview = commands.add_parser("preview", help="draw a picture with a run's newest LoRA, or with a LoRA file")
    preview.add_argument("target", metavar="RUN|LORA")
    preview.add_argument("--prompt", required=True)
    preview.add_argument("--steps", type=int, metavar="K", help="sampling steps (default: the run's, or 8)")
    preview.add_argument("--seed", type=int, default=42)
    preview.add_argument("--size", type=int, metavar="PIXELS", help="side of the picture (default: the model's own)")
    preview.add_argument("--model", help="the base model, for a LoRA file (default: what its metadata names)")
    preview.add_argument("--out", type=Path, required=True)
    _runs_option(preview)
    preview.set_defaults(handler=_preview)

    lora_commands.add_parsers(commands)

    paths = commands.add_parser("paths", help="where configs, themes, runs and caches are")
    _runs_option(paths)
    paths.set_defaults(handler=_paths)
    return parser


def _runs_option(parser: argparse.ArgumentParser) -> None:
    # SUPPRESS: an option before the command must not be overwritten by the command's default.
    parser.add_argument("--runs", type=Path, metavar="DIR", default=argparse.SUPPRESS, help="where runs are")


def _app_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--slow", action="store_true", default=argparse.SUPPRESS, help="repaint once a second")
    parser.add_argument("--theme", default=argparse.SUPPRESS, help="name of a theme")
    parser.add_argument("--no-mouse", action="store_true", default=argparse.SUPPRESS, help="leave the mouse alone")
    parser.add_argument(
        "--color", choices=("auto", "16", "256", "truecolor", "none"), default=argparse.SUPPRESS, help="colours to use"
    )


def _training_options(parser: argparse.ArgumentParser, *, name: bool = True) -> None:
    parser.add_argument("--headless", action="store_true", help="no app: progress lines on stderr, ends with the run")
    parser.add_argument("--json", action="store_true", help="with --headless: one JSON object per event on stdout")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides", help="override a config key"
    )
    parser.add_argument("--steps", type=int, metavar="N", help="end after N optimizer steps; schedules plan for N")
    _device_options(parser)
    if name:
        parser.add_argument("--name", help="the run's name")
    _runs_option(parser)
    _app_options(parser)


def _device_options(parser: argparse.ArgumentParser) -> None:
    busy = parser.add_mutually_exclusive_group()
    busy.add_argument(
        "--wait",
        action="store_const",
        const="--wait",
        dest="when_busy",
        default="",
        help="while another of your runs uses the device, wait in line for it (what a GPU run does anyway)",
    )
    busy.add_argument(
        "--share", action="store_const", const="--share", dest="when_busy", default="",
        help="start beside another run on the same device (what a CPU run does anyway)",
    )  # fmt: skip


# ---- commands --------------------------------------------------------------------------------------------------------


def _launchpad(args: argparse.Namespace) -> int:
    return _open_app(args, None)


def _demo(args: argparse.Namespace) -> int:
    return _start(args, shipped("sample_configs") / DEMO_CONFIG, "demo")


def _train(args: argparse.Namespace) -> int:
    return _start(args, args.config, args.config.stem)


def _start(args: argparse.Namespace, config_path: Path, stem: str) -> int:
    from acrf_engine.config import absolute, dump, load_config

    _require_terminal_or_headless(args)
    overrides = list(args.overrides)
    if args.steps is not None:
        overrides.append(f"steps={args.steps}")
    config = absolute(load_config(config_path, overrides), config_path)
    runs_dir = _runs_dir(args)
    if config_path.name == "config.yaml" and (config_path.parent / "status.json").exists():
        stem = config_path.absolute().parent.name  # the config of a run folder: repeat that run
    folder = create_run(runs_dir, args.name or fresh_name(runs_dir, stem), dump(config), config.steps or 0)
    return _go(args, folder)


def _resume(args: argparse.Namespace) -> int:
    from acrf_engine.run.resuming import prepare_resume

    _require_terminal_or_headless(args)
    folder = find_run(args.run, _runs_dir(args))
    prepare_resume(folder, args.overrides, steps=args.steps, epochs=args.epochs)
    return _go(args, folder)


def _replay(args: argparse.Namespace) -> int:
    from acrf_engine.run.replay import create_replay

    _require_terminal_or_headless(args)
    runs_dir = _runs_dir(args)
    return _go(args, create_replay(find_run(args.run, runs_dir), runs_dir, args.name))


def _go(args: argparse.Namespace, folder: RunFolder) -> int:
    if args.headless:
        from acrf_engine.run.headless import train_headless

        return train_headless(folder, args.json, args.when_busy)
    from acrf_engine.run.client import launch

    launch(folder, args.when_busy).close()
    return _open_app(args, folder)


def _attach(args: argparse.Namespace) -> int:
    folder = find_run(args.run, _runs_dir(args))
    return _open_app(args, folder)


def _runs(args: argparse.Namespace) -> int:
    rows = [_summary(folder) for folder in list_runs(_runs_dir(args))]
    if args.json:
        print(json.dumps(rows, indent=1))
        return 0
    if not rows:
        print(f"no runs in {_runs_dir(args)} (start one with `acrf-tui demo`)")
        return 0
    width = max(len(row["name"]) for row in rows)
    print(f"{'name':{width}}  {'state':11}  {'step':>15}  {'loss':>8}  {'age':>8}  folder")
    for row in rows:
        step = f"{row['step']}/{row['total_steps'] or '?'}"
        loss = f"{row['loss']:.4f}" if row["loss"] is not None else "-"
        age = _age(row["age_s"])
        state = "waiting" if row["waiting"] else row["state"]
        print(f"{row['name']:{width}}  {state:11}  {step:>15}  {loss:>8}  {age:>8}  {row['folder']}")
    return 0


def _summary(folder: RunFolder) -> dict[str, Any]:
    try:
        status = folder.read_status()
    except RunError as error:
        return {
            "name": folder.name, "state": "unreadable", "step": 0, "total_steps": 0, "loss": None, "age_s": 0.0,
            "folder": str(folder.path), "error": str(error), "waiting": None,
        }  # fmt: skip
    return {
        "name": folder.name,
        "state": status.state,
        "step": status.step,
        "total_steps": status.total_steps,
        "loss": status.loss,
        "age_s": max(0.0, time.time() - status.created),
        "folder": str(folder.path),
        "error": status.error,
        "waiting": status.waiting or None,
    }


def _age(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _control(args: argparse.Namespace) -> int:
    from acrf_engine.run.client import Run

    folder = find_run(args.run, _runs_dir(args))
    extra: dict[str, Any] = {}
    if args.name == "set":
        key, separator, value = (args.setting or "").partition("=")
        if not separator:
            raise RunError("control RUN set: expected KEY=VALUE, such as learning_rate=5e-5")
        extra = {"key": key.strip(), "value": value.strip()}
        if args.ramp:
            extra["ramp"] = args.ramp
    elif args.setting:
        raise RunError(f"control RUN {args.name}: takes no value, got {args.setting!r}")
    patience = threading.Timer(CONTROL_HINT_S, _say_control_waits, (folder, args.name))
    patience.daemon = True
    patience.start()
    try:
        ack = Run(folder).command(args.name, **extra)
    except ConnectionError as error:
        print(f"acrf-tui: refused: {error}", file=sys.stderr)
        return 1
    finally:
        patience.cancel()
    print(f"{'done' if ack.ok else 'refused'} at step {ack.step}: {ack.message}")
    return 0 if ack.ok else 1


def _say_control_waits(folder: RunFolder, command: str) -> None:
    print(
        f"acrf-tui: {command} takes effect at the run's next step; still waiting "
        f"(`acrf-tui logs {folder.name}` shows what it does, ctrl+c stops waiting)",
        file=sys.stderr,
    )


def _queue(args: argparse.Namespace) -> int:
    from acrf_engine.run import waiting
    from acrf_engine.run.client import Run

    if args.run is not None:
        folder = find_run(args.run, _runs_dir(args))
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


def _logs(args: argparse.Namespace) -> int:
    folder = find_run(args.run, _runs_dir(args))
    if not folder.log.exists():
        raise RunError(f"run {folder.name} has no log yet")
    with folder.log.open(encoding="utf-8", errors="replace") as log:
        while True:
            active = args.follow and folder.read_status().active
            for line in log:
                sys.stdout.write(line)
            sys.stdout.flush()
            if not active:
                return 0
            time.sleep(0.25)


def _check(args: argparse.Namespace) -> int:
    command = ["check", str(args.config)]
    command += ["--json"] if args.json else []
    for override in args.overrides:
        command += ["--set", override]
    return lora_commands.run_engine([*command, "--runs", str(_runs_dir(args))])


def _preview(args: argparse.Namespace) -> int:
    lora, model, steps = lora_commands.lora_of(args)
    command = ["preview", str(lora), "--model", model, "--prompt", args.prompt, "--out", str(args.out)]
    command += ["--steps", str(args.steps or steps), "--seed", str(args.seed)]
    return lora_commands.run_engine(command + (["--size", str(args.size)] if args.size else []))


def _paths(args: argparse.Namespace) -> int:
    import platformdirs

    from acrf_engine.config import ASSETS
    from acrf_engine.run.folder import APP_NAME, index_file
    from acrf_engine.run.waiting import line_file

    rows = {
        "runs": _runs_dir(args),
        "sample configs": shipped("sample_configs"),
        "own configs": platformdirs.user_config_path(APP_NAME) / "configs",
        "shipped themes": shipped("themes"),
        "own themes": platformdirs.user_config_path(APP_NAME) / "themes",
        "cache": platformdirs.user_cache_path(APP_NAME),
        "index of runs": index_file(),
        "device line": line_file(),
        "tiny model": ASSETS / "tiny",
        "demo pictures": ASSETS / "demo",
    }
    for name, path in rows.items():
        print(f"{name:15} {path}")
    return 0


# ---- the app ---------------------------------------------------------------------------------------------------------


def _runs_dir(args: argparse.Namespace) -> Path:
    given: Path | None = getattr(args, "runs", None)
    return given.absolute() if given else default_runs_dir()


def _require_terminal_or_headless(args: argparse.Namespace) -> None:
    if args.headless:
        return
    if args.json:
        raise RunError("--json goes with --headless")
    _require_terminal()


def _require_terminal() -> None:
    if not (sys.stdin.isatty() and sys.stdout.isatty()) or os.environ.get("TERM", "dumb") == "dumb":
        raise RunError("this is not a terminal the app can draw on (use `acrf-tui train CONFIG --headless`)")


def _open_app(args: argparse.Namespace, folder: RunFolder | None) -> int:
    _require_terminal()
    from acrf_tui.app import AppOptions, run_app

    options = AppOptions(
        runs_dir=_runs_dir(args),
        slow=getattr(args, "slow", False),
        theme=getattr(args, "theme", None),
        mouse=not getattr(args, "no_mouse", False),
        color=getattr(args, "color", "auto"),
        observe=getattr(args, "observe", False),
    )
    return run_app(options, folder)


if __name__ == "__main__":
    sys.exit(main())

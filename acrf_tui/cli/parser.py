"""Every command and option of `acrf-tui`, and which function does it."""

from __future__ import annotations

import argparse
from pathlib import Path

from acrf_engine import __version__
from acrf_tui.cli import completion, engine, keys, lora, paths, queue, serve, training, trash, watching


def make_parser() -> argparse.ArgumentParser:
    """The parser; `handler` of what it returns does the command and returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="acrf-tui",
        description="Train Z-Image-Turbo LoRAs with AC-RF in the terminal. Without a command: the launchpad.",
    )
    parser.add_argument("--version", action="version", version=f"acrf-tui {__version__}")
    _app_options(parser)
    parser.add_argument("--runs", type=Path, metavar="DIR", help="where runs are (default ./runs, or ACRF_RUNS)")
    parser.set_defaults(handler=training.launchpad)
    commands = parser.add_subparsers(metavar="COMMAND")

    demo = commands.add_parser("demo", help="train the built-in tiny model: no download, no GPU, real training")
    _training_options(demo)
    demo.set_defaults(handler=training.demo)

    train = commands.add_parser("train", help="start a run of a config")
    train.add_argument("config", type=Path)
    _training_options(train)
    train.set_defaults(handler=training.train)

    resume = commands.add_parser(
        "resume", help="continue a stopped, failed or interrupted run, or extend a finished one"
    )
    resume.add_argument("run")
    _training_options(resume, name=False)
    resume.add_argument("--epochs", type=int, metavar="N", help="extend to this many epochs, instead of --steps")
    resume.set_defaults(handler=training.resume)

    attach = commands.add_parser("attach", help="watch and steer a run that is going on, or look at an ended one")
    attach.add_argument("run", nargs="?")
    attach.add_argument("--observe", action="store_true", help="look only, send no command")
    _runs_option(attach)
    _app_options(attach)
    attach.set_defaults(handler=watching.attach)

    runs = commands.add_parser("runs", help="list runs")
    runs.add_argument("--json", action="store_true")
    _runs_option(runs)
    runs.set_defaults(handler=watching.runs)

    control = commands.add_parser("control", help="send a command to a run and print what it did")
    control.add_argument("run")
    control.add_argument(
        "name", choices=("pause", "resume", "checkpoint", "preview", "stop", "free-vram", "reload", "set")
    )
    control.add_argument("setting", nargs="?", metavar="KEY=VALUE")
    control.add_argument("--ramp", type=int, default=0, metavar="N", help="with set learning_rate: over N steps")
    _runs_option(control)
    control.set_defaults(handler=watching.control)

    line = commands.add_parser("queue", help="the line for the GPU: who uses it, who waits; move or cancel a run")
    line.add_argument("run", nargs="?", help="a waiting run")
    change = line.add_mutually_exclusive_group()
    change.add_argument("--to", type=int, metavar="N", help="make RUN the Nth of those that wait")
    change.add_argument("--cancel", action="store_true", help="take RUN out of the line; it can be resumed later")
    line.add_argument("--json", action="store_true")
    _runs_option(line)
    line.set_defaults(handler=queue.queue)

    deleted = commands.add_parser(
        "trash", help="what was deleted in the launchpad: list it, bring it back, or empty it"
    )
    change = deleted.add_mutually_exclusive_group()
    change.add_argument("--restore", metavar="NAME", help="put it back where it was")
    change.add_argument("--empty", action="store_true", help="delete all of it for good")
    _runs_option(deleted)
    deleted.set_defaults(handler=trash.trash)

    logs = commands.add_parser("logs", help="the worker's log")
    logs.add_argument("run")
    logs.add_argument("-f", "--follow", action="store_true", help="go on printing until the run ends")
    _runs_option(logs)
    logs.set_defaults(handler=watching.logs)

    replay = commands.add_parser("replay", help="repeat an ended run from its config and journal, to the same weights")
    replay.add_argument("run")
    replay.add_argument("--headless", action="store_true", help="no app: progress lines on stderr")
    replay.add_argument("--json", action="store_true", help="with --headless: one JSON object per event on stdout")
    replay.add_argument("--name", help="the new run's name")
    _device_options(replay)
    _runs_option(replay)
    _app_options(replay)
    replay.set_defaults(handler=training.replay)

    check = commands.add_parser("check", help="what a config will do and whether it can; trains nothing")
    check.add_argument("config", type=Path)
    check.add_argument("--json", action="store_true")
    check.add_argument("--vram", type=float, metavar="GIB", help="estimate for a card of so much memory")
    check.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    _runs_option(check)
    check.set_defaults(handler=engine.check)

    preview = commands.add_parser("preview", help="draw a picture with a run's newest LoRA, or with a LoRA file")
    preview.add_argument("target", metavar="RUN|LORA")
    preview.add_argument("--prompt", required=True)
    preview.add_argument("--steps", type=int, metavar="K", help="sampling steps (default: the run's, or 8)")
    preview.add_argument("--seed", type=int, default=42)
    preview.add_argument("--size", type=int, metavar="PIXELS", help="side of the picture (default: the model's own)")
    preview.add_argument("--model", help="the base model, for a LoRA file (default: what its metadata names)")
    preview.add_argument("--out", type=Path, required=True)
    _runs_option(preview)
    preview.set_defaults(handler=lora.preview)

    lora.add_parsers(commands)

    where = commands.add_parser("paths", help="where configs, themes, runs and caches are")
    _runs_option(where)
    where.set_defaults(handler=paths.paths)

    table = commands.add_parser("keys", help="every key of the app, its id for keys.yaml, and what it does")
    table.add_argument("--markdown", action="store_true", help="as the page docs/keys.md")
    table.set_defaults(handler=keys.keys)

    shell = commands.add_parser("completion", help="print a script that lets the shell complete acrf-tui")
    shell.add_argument("shell", choices=("bash", "zsh", "fish"))
    shell.set_defaults(handler=completion.completion)

    browser = commands.add_parser("serve", help="show the app in a browser on this machine, or through a tunnel")
    browser.add_argument(
        "--port", type=int, default=serve.PORT, metavar="N", help="0: any free one (default %(default)s)"
    )
    _runs_option(browser)
    _app_options(browser)
    browser.set_defaults(handler=serve.serve)
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
    parser.add_argument(
        "--symbols",
        choices=("auto", "braille", "block", "ascii"),
        default=argparse.SUPPRESS,
        help="characters to draw with (auto: by the locale)",
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
    for option, text in (
        ("--wait", "while another of your runs uses the device, wait in line for it (what a GPU run does anyway)"),
        ("--share", "start beside another run on the same device (what a CPU run does anyway)"),
    ):
        busy.add_argument(option, action="store_const", const=option, dest="when_busy", default="", help=text)

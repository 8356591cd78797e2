"""The command line: finds runs and configs, starts what is asked; imports nothing heavy until needed."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable

from acrf_engine.run.folder import RunError
from acrf_tui.cli.completion import ASKED, answer_shell
from acrf_tui.cli.parser import make_parser


def main(argv: list[str] | None = None) -> int:
    """Entry point of `acrf-tui`. Returns the exit status."""
    arguments = sys.argv[1:] if argv is None else argv
    parser = make_parser()
    if ASKED in os.environ:
        answer_shell(parser)
    args = parser.parse_args(arguments)
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

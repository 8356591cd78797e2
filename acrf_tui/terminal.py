"""The terminal: which colours it gets, and leaving it clean when the line drops."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable

COLOR_SYSTEMS: dict[str, str] = {"16": "standard", "256": "256", "truecolor": "truecolor"}
ANSI_THEME = "acrf-ansi"


def choose_colors(choice: str) -> bool:
    """Make the app, created after this, draw with these colours. Returns whether it is to draw without any."""
    from textual import constants

    if choice == "none":
        os.environ["NO_COLOR"] = "1"
    elif choice in COLOR_SYSTEMS:
        os.environ.pop("NO_COLOR", None)
        constants.COLOR_SYSTEM = COLOR_SYSTEMS[choice]  # type: ignore[misc]
    return "NO_COLOR" in os.environ


def on_hangup(leave: Callable[[int], object]) -> None:
    """Call `leave` with an exit status on SIGHUP and SIGTERM, which otherwise end the app without restoring it."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGHUP, signal.SIGTERM):
        # Not in the main thread, as in tests: then nobody sends the app a signal either.
        with contextlib.suppress(RuntimeError, ValueError, NotImplementedError):
            loop.add_signal_handler(number, leave, 128 + number)

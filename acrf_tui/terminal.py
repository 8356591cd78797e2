"""The terminal: which colours it gets, and leaving it clean when the line drops."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Callable

COLOR_SYSTEMS: dict[str, str] = {"16": "standard", "256": "256", "truecolor": "truecolor"}
ANSI_THEME = "acrf-ansi"
HANG_UP_S = 5.0


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
    """Call `leave` with an exit status on SIGHUP and SIGTERM, which otherwise end the app without restoring it.

    Once its line is gone, the thread that writes to the terminal may be dead and the event loop wait for it for ever:
    after a hang-up the app is ended in any case.
    """
    loop = asyncio.get_running_loop()

    def handle(number: int, _frame: object) -> None:
        if number == signal.SIGHUP:
            last_resort = threading.Timer(HANG_UP_S, os._exit, (128 + number,))
            last_resort.daemon = True
            last_resort.start()
        loop.call_soon_threadsafe(leave, 128 + number)

    for number in (signal.SIGHUP, signal.SIGTERM):
        # Not in the main thread, as in tests: then nobody sends the app a signal either.
        with contextlib.suppress(ValueError):
            signal.signal(number, handle)

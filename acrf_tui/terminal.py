"""The terminal: which colours it gets, and leaving it clean when the line drops."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import termios
import threading
from collections.abc import Callable
from typing import Any

COLOR_SYSTEMS: dict[str, str] = {"16": "standard", "256": "256", "truecolor": "truecolor"}
ANSI_THEME = "acrf-ansi"
LEAVING_S = 5.0
RESET = b"\x1b[?1049l\x1b[?1000l\x1b[?1003l\x1b[?1006l\x1b[?1015l\x1b[?2004l\x1b[?1004l\x1b[<u\x1b[?25h\x1b[0m"
"""Leaves the alternate screen, the mouse, pasting, focus and keyboard reports, and shows the cursor."""


def choose_colors(choice: str) -> bool:
    """Make the app, created after this, draw with these colours. Returns whether it is to draw without any."""
    from textual import constants

    if choice == "none":
        os.environ["NO_COLOR"] = "1"
    elif choice in COLOR_SYSTEMS:
        os.environ.pop("NO_COLOR", None)
        constants.COLOR_SYSTEM = COLOR_SYSTEMS[choice]  # type: ignore[misc]  # Textual reads it when the app is made
    return "NO_COLOR" in os.environ


def terminal_modes() -> list[Any] | None:
    """How the terminal treats what is typed, to be taken before the app; None where there is no terminal."""
    try:
        return termios.tcgetattr(sys.__stdin__) if sys.__stdin__ is not None else None
    except (termios.error, ValueError, OSError):
        return None


def leave_on_signals(leave: Callable[[int], object], modes: list[Any] | None) -> None:
    """Call `leave` with an exit status on SIGHUP, SIGTERM and SIGINT, which otherwise end the app as it stands.

    Once its line is gone, the thread that writes to the terminal may be dead and the event loop wait for it for ever;
    and a cancelled task may swallow asyncio's own SIGINT. Whoever has not left after a while is ended, and the terminal
    put back to `modes`.
    """
    loop = asyncio.get_running_loop()

    def end(status: int) -> None:
        with contextlib.suppress(OSError, ValueError):
            os.set_blocking(1, False)  # a line that takes nothing must not hold this up as well
            os.write(1, RESET)
        with contextlib.suppress(termios.error, OSError):
            if modes is not None:
                termios.tcsetattr(0, termios.TCSANOW, modes)
        os._exit(status)

    def handle(number: int, _frame: object) -> None:
        last_resort = threading.Timer(LEAVING_S, end, (128 + number,))
        last_resort.daemon = True
        last_resort.start()
        loop.call_soon_threadsafe(leave, 128 + number)

    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
        # Not in the main thread, as in tests: then nobody sends the app a signal either.
        with contextlib.suppress(ValueError):
            signal.signal(number, handle)

"""The terminal: its colours, symbols and distance, and leaving it clean when the line drops."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import termios
import threading
from collections.abc import Callable, Mapping
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
        with contextlib.suppress(RuntimeError):  # the loop is closed: the app is leaving anyway
            loop.call_soon_threadsafe(leave, 128 + number)

    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
        # Not in the main thread, as in tests: then nobody sends the app a signal either.
        with contextlib.suppress(ValueError):
            signal.signal(number, handle)


# ---- what the terminal can show, and how far away it is --------------------------------------------------------------


def first_environment() -> Mapping[str, str]:
    """The environment as the user gave it: Python turns a C locale into C.UTF-8 before we are asked."""
    try:
        with open("/proc/self/environ", "rb") as file:
            pairs = (part.partition(b"=") for part in file.read().split(b"\0") if part)
            return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}
    except OSError:
        return os.environ


def symbols_name(choice: str, environment: Mapping[str, str]) -> str:
    """Which symbol set to draw with: braille, block or ascii. `choice` is one of these, or auto.

    auto is ascii where the locale says another encoding than UTF-8 (LC_ALL=C does), block on the Linux console, whose
    font has no braille, and braille elsewhere: also where no locale is set at all, as in most containers.
    """
    if choice != "auto":
        return choice
    names = (environment.get(name) for name in ("LC_ALL", "LC_CTYPE", "LANG"))
    locale = next((name for name in names if name), "")
    if locale and locale.partition("@")[0].rpartition(".")[2].lower().replace("-", "") != "utf8":
        return "ascii"
    return "block" if environment.get("TERM") == "linux" else "braille"


def over_ssh(environment: Mapping[str, str]) -> bool:
    """Whether the terminal is at the other end of an SSH line."""
    return bool(environment.get("SSH_CONNECTION") or environment.get("SSH_TTY"))


def background_is_light(environment: Mapping[str, str]) -> bool:
    """Whether COLORFGBG says so, as rxvt, Konsole, iTerm2 and others set it. Asking the terminal would cost a wait."""
    return environment.get("COLORFGBG", "").rpartition(";")[2] in ("7", "15")


def fewer_frames(per_second: int) -> None:
    """Let screens made after this gather changes and send them at most this often."""
    from textual import screen

    period = 1.0 / per_second
    if period > screen.UPDATE_PERIOD:
        screen.UPDATE_PERIOD = period  # type: ignore[misc]  # TEXTUAL_FPS, after the first paint

"""A program in a real pseudo-terminal, its screen read as a user would see it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time
from collections.abc import Sequence

import pyte

PATIENCE_S = 90.0
PRIVATE_MODES = re.compile(rb"\x1b\[[<>=][0-9;]*[a-zA-Z]")
DEVICE_STRINGS = re.compile(rb"\x1b[P_^][^\x1b]*\x1b\\")
TITLES = re.compile(rb"\x1b\][^\x07\x1b]*(\x07|\x1b\\)")


class Terminal:
    """Runs `command` on a pty of `columns` x `rows`; `until` reads the screen until it shows what is waited for."""

    def __init__(self, command: Sequence[str], columns: int = 120, rows: int = 40, **environment: str) -> None:
        self.screen = pyte.Screen(columns, rows)
        self.raw = bytearray()
        self._stream = pyte.ByteStream(self.screen)
        self._status: int | None = None
        own = {"TERM": "xterm-256color", "COLORTERM": "truecolor", "LANG": "C.UTF-8", **environment}
        # readline puts COLUMNS and LINES into the C environment, and they would overrule the real size.
        environ = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")} | own
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.pid, self._fd = os.fork(), ours
        if self.pid == 0:
            os.close(ours)
            os.login_tty(theirs)
            os.execvpe(command[0], list(command), environ)
        os.close(theirs)

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.screen.resize(rows, columns)

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    @property
    def text(self) -> str:
        return "\n".join(self.screen.display)

    def until(self, *wanted: str, patience_s: float = PATIENCE_S) -> str:
        """Read until all of `wanted` are on the screen; returns it. Fails showing the screen."""
        end = time.monotonic() + patience_s
        while not all(text in self.text for text in wanted):
            if time.monotonic() > end or not self._read():
                missing = [text for text in wanted if text not in self.text]
                raise AssertionError(f"not on the screen: {missing}\n{self.text}")
        return self.text

    def until_gone(self, unwanted: str, patience_s: float = PATIENCE_S) -> None:
        end = time.monotonic() + patience_s
        while unwanted in self.text:
            if time.monotonic() > end or not self._read():
                raise AssertionError(f"still on the screen: {unwanted}\n{self.text}")

    def _read(self) -> bool:
        ready, _, _ = select.select([self._fd], [], [], 0.2)
        if not ready:
            return self.status() is None
        try:
            data = os.read(self._fd, 65536)
        except OSError:
            return False
        if not data:
            return False
        self.raw += data
        for pattern in (PRIVATE_MODES, DEVICE_STRINGS, TITLES):
            data = pattern.sub(b"", data)
        self._stream.feed(data)
        return True

    def status(self) -> int | None:
        """The exit status, None while the program runs."""
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._status = os.waitstatus_to_exitcode(status)
        return self._status

    def wait(self, patience_s: float = 20.0) -> int:
        """The exit status, once the program has left."""
        end = time.monotonic() + patience_s
        while self.status() is None:
            if time.monotonic() > end:
                raise AssertionError(f"did not leave within {patience_s:.0f} s\n{self.text}")
            self._read()
        while self._read_rest():
            pass
        assert self._status is not None
        return self._status

    def _read_rest(self) -> bool:
        ready, _, _ = select.select([self._fd], [], [], 0)
        if not ready:
            return False
        try:
            data = os.read(self._fd, 65536)
        except OSError:
            return False
        self.raw += data
        return bool(data)

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            if self.status() is None:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
        os.close(self._fd)

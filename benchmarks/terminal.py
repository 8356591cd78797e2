"""A program on a pseudo-terminal of 120 x 40, as an SSH line sees it: every byte with the time at which it came."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import psutil

COLUMNS, ROWS = 120, 40
FRAME_GAP_S = 0.01
"""Bytes that come closer together than this belong to one frame."""
FULL_SHARE = 0.9
"""A frame that writes this share of all cells paints the screen anew."""
ESCAPES = re.compile(rb"\x1b(\[[0-9;:<=>?]*[ -/]*[@-~]|[\]P_^][^\x07\x1b]*(\x07|\x1b\\)|[()][A-Z0-9]|[=>78c])")


@dataclass(frozen=True)
class Frame:
    """What came at once: when it began, its bytes, and the cells that it wrote."""

    time: float
    bytes: int
    cells: int

    @property
    def full(self) -> bool:
        return self.cells >= FULL_SHARE * COLUMNS * ROWS


class Terminal:
    """A thread reads all the time, so the program never waits for this one."""

    def __init__(self, command: Sequence[str], environment: dict[str, str] | None = None) -> None:
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self.began = time.perf_counter()
        self.process = subprocess.Popen(
            list(command), stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            env={**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", **(environment or {})},
        )  # fmt: skip
        os.close(theirs)
        self.pid, self._fd = self.process.pid, ours
        self._pieces: list[tuple[float, bytes]] = []
        self._came = threading.Condition()
        self._over = False
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while True:
            try:
                piece = os.read(self._fd, 65_536)
            except OSError:
                piece = b""
            with self._came:
                self._over = not piece
                self._pieces.append((time.perf_counter(), piece))
                self._came.notify_all()
            if not piece:
                return

    def until(self, *wanted: bytes, patience_s: float = 60.0) -> float:
        """Seconds from the start of the program to the piece with which all of `wanted` had come."""
        end = time.monotonic() + patience_s
        seen, known = b"", 0
        with self._came:
            while True:
                for when, piece in self._pieces[known:]:
                    seen += piece
                    if all(text in seen for text in wanted):
                        return when - self.began
                known = len(self._pieces)
                if self._over or not self._came.wait(max(0.0, end - time.monotonic())):
                    raise RuntimeError(f"the app has not drawn {wanted}; it ended with {seen[-300:]!r}")

    def frames(self, since: float) -> list[Frame]:
        """The frames that began after `since`, by the clock of `time.perf_counter`."""
        with self._came:
            pieces = [(when, piece) for when, piece in self._pieces if when >= since]
        frames: list[list[tuple[float, bytes]]] = []
        for when, piece in pieces:
            if frames and when - frames[-1][-1][0] < FRAME_GAP_S:
                frames[-1].append((when, piece))
            else:
                frames.append([(when, piece)])
        found = []
        for parts in frames:
            data = b"".join(piece for _, piece in parts)
            text = ESCAPES.sub(b"", data).decode("utf-8", "replace")
            found.append(Frame(parts[0][0], len(data), sum(char.isprintable() for char in text)))
        return found

    def cpu_s(self) -> float:
        """User and system time that the program has used."""
        times = psutil.Process(self.pid).cpu_times()
        return float(times.user + times.system)

    def memory_mb(self) -> float:
        """Its resident memory."""
        return float(psutil.Process(self.pid).memory_info().rss / 1e6)

    def maps(self, name: str) -> bool:
        """Whether it has loaded a library of this name."""
        with open(f"/proc/{self.pid}/maps", encoding="utf-8", errors="replace") as file:
            return any(name in line for line in file)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._thread.join(2.0)
        os.close(self._fd)


@contextlib.contextmanager
def terminal(command: Sequence[str], environment: dict[str, str] | None = None) -> Iterator[Terminal]:
    """A program on a terminal that is killed at the end."""
    opened = Terminal(command, environment)
    try:
        yield opened
    finally:
        opened.close()

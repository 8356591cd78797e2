"""The link between supervisor and worker (two queues), and between supervisor and apps (one socket, JSON lines)."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import queue
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from acrf_engine.protocol import MERGEABLE, Command, Event, Pictures, Step
from acrf_engine.run.wire import encode, fitting, to_wire

QUEUE_EVENTS = 2000
PICTURES_PER_EVENT = 32
ENCODING = "utf-8"
LIVING_READER_S = 600.0


class Reporter:
    """The worker's end of the event queue. Never blocks training.

    When the queue is full, step events are merged (the next one says how many it stands for); an acknowledgement,
    checkpoint, warning or error waits in a backlog until there is room.
    """

    def __init__(self, events: Any) -> None:
        self._queue = events
        self._backlog: deque[str] = deque()
        self._merged = 0

    def __call__(self, event: Event) -> None:
        for part in split(event):
            self._send(part)

    def _send(self, event: Event) -> None:
        if isinstance(event, Step) and self._merged:
            event = dataclasses.replace(event, merged=self._merged)
        line = fitting(to_wire(event))
        if self._drain() and self._put(line):
            self._merged = 0 if isinstance(event, Step) else self._merged
        elif event.type in MERGEABLE:
            self._merged += isinstance(event, Step)
        else:
            self._backlog.append(line)

    def _drain(self) -> bool:
        while self._backlog:
            if not self._put(self._backlog[0]):
                return False
            self._backlog.popleft()
        return True

    def _put(self, line: str) -> bool:
        try:
            self._queue.put_nowait(line)
        except queue.Full:
            return False
        return True

    def close(self, reader_lives: Callable[[], bool] = lambda: False, patience_s: float = 3.0) -> None:
        """Hand over what is left: within `patience_s` to a dead reader, with more to one that lives (stopped, say)."""
        begun = time.monotonic()

        def patient() -> bool:
            return time.monotonic() - begun < (LIVING_READER_S if reader_lives() else patience_s)

        while not self._drain() and patient():
            time.sleep(0.02)
        self._queue.cancel_join_thread()
        self._queue.close()
        # The feeder thread writes to the pipe in its own time; joining it for ever would hang on a dead reader.
        thread = getattr(self._queue, "_thread", None)
        while thread is not None and thread.is_alive() and patient():
            thread.join(0.1)


def split(event: Event) -> Iterator[Event]:
    """An event in parts that each stay below the size limit: only a step's per-picture lists can be long."""
    if not isinstance(event, Step) or len(event.sigmas) <= PICTURES_PER_EVENT:
        yield event
        return
    size = PICTURES_PER_EVENT
    head = {name: getattr(event, name)[:size] for name in ("sigmas", "anchors", "weights", "losses")}
    yield dataclasses.replace(event, **head)
    for start in range(size, len(event.sigmas), size):
        part = slice(start, start + size)
        yield Pictures(event.step, event.sigmas[part], event.anchors[part], event.weights[part], event.losses[part])


class Inbox:
    """The worker's end of the command queue."""

    def __init__(self, commands: Any) -> None:
        self._queue = commands

    def poll(self, wait_s: float = 0.0) -> list[Command]:
        """All commands that have arrived, waiting up to `wait_s` seconds for the first."""
        arrived: list[Command] = []
        with contextlib.suppress(queue.Empty, EOFError, OSError):
            if wait_s > 0:
                arrived.append(Command(**self._queue.get(timeout=wait_s)))
            while True:
                arrived.append(Command(**self._queue.get_nowait()))
        return arrived


class Connection:
    """A client's connection to the supervisor: one request line, one answer line, in turn."""

    def __init__(self, path: str, timeout_s: float = 10.0) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout_s)
        end = time.monotonic() + timeout_s
        while True:
            try:
                self._socket.connect(path)
                break
            except BlockingIOError:  # very many connect at this moment, and the listener's queue is full
                if time.monotonic() > end:
                    self._socket.close()
                    raise
                time.sleep(0.01)
            except OSError:
                self._socket.close()
                raise
        self._file = self._socket.makefile("rwb")

    def ask(self, request: dict[str, Any], timeout_s: float | None = 10.0) -> dict[str, Any]:
        """The answer to `request`. Raises ConnectionError when the supervisor is gone or does not answer in time."""
        self._socket.settimeout(timeout_s)
        try:
            self._file.write(encode(request).encode(ENCODING) + b"\n")
            self._file.flush()
            line = self._file.readline()
        except TimeoutError:
            raise ConnectionError("the supervisor does not answer") from None
        if not line.endswith(b"\n"):
            raise ConnectionError("the supervisor has closed the connection")
        answer = json.loads(line)
        if not isinstance(answer, dict):
            raise ConnectionError("the supervisor answered something unexpected")
        return answer

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()
        self._socket.close()


def same_user(connection: socket.socket) -> bool:
    """Whether the peer runs as our user; where the system cannot tell, the folder's mode alone guards the socket."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    size = struct.calcsize("3i")
    _pid, uid, _gid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return bool(uid == os.geteuid())


def read_socket_path(pointer: Path) -> str | None:
    """The socket's path as the run folder names it, None where the folder or the socket's owner is not ours."""
    try:
        path = pointer.read_text(encoding=ENCODING).strip()
        folder = os.stat(os.path.dirname(path))
    except OSError:
        return None
    return path if folder.st_uid == os.geteuid() else None

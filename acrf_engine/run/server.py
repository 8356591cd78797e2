"""The supervisor's socket: same user only, JSON lines, pull with a cursor.

Requests: {"op": "hello"}, {"op": "status"}, {"op": "pull", "after": seq, "wait": s, "max": n} and {"op": "command",
"name": ..., "args": {...}}, which is answered when the worker has acknowledged. A reader that stalls costs its own
thread and nothing else.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import itertools
import json
import math
import os
import shutil
import socket
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import acrf_engine
from acrf_engine.protocol import COMMANDS, PROTOCOL_VERSION, Command
from acrf_engine.run.folder import write_private
from acrf_engine.run.link import ENCODING, read_socket_path, same_user
from acrf_engine.run.wire import encode

if TYPE_CHECKING:
    from acrf_engine.run.supervisor import Supervisor

MAX_REQUEST_BYTES = 65_536
MAX_WAIT_S = 30.0
MAX_CLIENTS = 64
ACK_PATIENCE_S = 600.0


class Server:
    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._folder = ""
        self._clients: set[socket.socket] = set()
        self._guard = threading.Lock()
        self._numbers = itertools.count(1)

    def start(self) -> None:
        pointer = self._supervisor.folder.socket
        self._remove_stale(pointer)
        self._folder = tempfile.mkdtemp(prefix="acrf-", dir=_short_temporary_folder())
        path = os.path.join(self._folder, "s")
        self._listener.bind(path)
        self._listener.listen(16)
        write_private(pointer, path + "\n")
        threading.Thread(target=self._accept, name="accept", daemon=True).start()

    @staticmethod
    def _remove_stale(pointer: Path) -> None:
        path = read_socket_path(pointer)
        if path and os.path.basename(os.path.dirname(path)).startswith("acrf-"):
            shutil.rmtree(os.path.dirname(path), ignore_errors=True)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ECONNABORTED):
                    return  # closed
                time.sleep(0.1)  # others hold every descriptor: until one is given back
                continue
            with self._guard:
                if not same_user(connection) or len(self._clients) >= MAX_CLIENTS:
                    _turn_away(connection)
                    continue
                self._clients.add(connection)
            threading.Thread(target=self._serve, args=(connection,), name="client", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, connection.makefile("rwb") as file:
                while line := file.readline(MAX_REQUEST_BYTES):
                    try:
                        answer = self._answer(json.loads(line))
                    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
                        answer = {"error": f"not a valid request: {error!r}"}
                    file.write(encode(answer).encode(ENCODING) + b"\n")
                    file.flush()
        except OSError:
            return
        finally:
            with self._guard:
                self._clients.discard(connection)

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        supervisor = self._supervisor
        match request["op"]:
            case "hello":
                return {"protocol": PROTOCOL_VERSION, "version": acrf_engine.__version__, "run": supervisor.folder.name}
            case "status":
                return {"status": dataclasses.asdict(supervisor.status)}
            case "pull":
                wait = float(request.get("wait", 0.0))
                if not math.isfinite(wait):
                    raise ValueError(f"wait {wait}")
                after, limit = int(request.get("after", 0)), int(request.get("max", 500))
                return supervisor.stream.pull(after, min(wait, MAX_WAIT_S), limit)
            case "command":
                return self._command(str(request["name"]), dict(request.get("args") or {}))
            case other:
                return {"error": f"unknown request {other!r}"}

    def _command(self, name: str, args: dict[str, Any]) -> dict[str, Any]:
        supervisor = self._supervisor
        if name not in COMMANDS:
            return {"error": f"unknown command {name!r} (one of {', '.join(COMMANDS)})"}
        identity = f"c{next(self._numbers)}-{os.urandom(3).hex()}"
        supervisor.send(Command(name, identity, args))
        attempt = supervisor.status.attempt
        ack = supervisor.stream.await_ack(identity, lambda: supervisor.status.attempt != attempt, ACK_PATIENCE_S)
        if ack is None:
            return {"error": "the worker ended before the command took effect"}
        return {"ack": ack}

    def drain(self, patience_s: float) -> None:
        """Give connected readers a moment to fetch the last events."""
        end = time.monotonic() + patience_s
        while self._clients and time.monotonic() < end:
            time.sleep(0.02)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._supervisor.folder.socket.unlink()
        self._listener.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def _turn_away(connection: socket.socket) -> None:
    with contextlib.suppress(OSError), connection:
        if same_user(connection):
            connection.setblocking(False)
            connection.send(encode({"error": f"more than {MAX_CLIENTS} apps are attached"}).encode() + b"\n")


def _short_temporary_folder() -> str:
    # A socket's path may hold 107 bytes; a deep TMPDIR leaves no room.
    folder = tempfile.gettempdir()
    return folder if len(os.fsencode(folder)) < 70 and folder.isprintable() else os.path.join(os.sep, "tmp")

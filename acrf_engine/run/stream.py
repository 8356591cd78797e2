"""The stream of a run's events: numbered, stored, kept for the readers that follow, and waited for.

Many threads write and read; `arrived` guards everything that they share. A store that fails costs history, never the
training.
"""

from __future__ import annotations

import itertools
import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from acrf_engine.protocol import LAST_EVENTS, Event
from acrf_engine.run.telemetry import TelemetryWriter
from acrf_engine.run.wire import to_wire

RING_EVENTS = 4096
"""How many of the last events a reader can fetch without looking into the store."""

log = logging.getLogger("acrf.supervisor")


class EventStream:
    """One writer's stream into the store at `path`; numbers go on where those of the attempt before ended."""

    def __init__(self, path: Path) -> None:
        self.telemetry = TelemetryWriter(path)
        self.arrived = threading.Condition()
        self.seq = self.telemetry.last_seq()
        self.ended = False
        self._ring: deque[dict[str, Any]] = deque(maxlen=RING_EVENTS)
        self._acks: dict[str, dict[str, Any]] = {}
        self._concluded = False
        self._said: set[str] = set()
        self._untold: deque[str] = deque()

    def emit(self, event: Event) -> None:
        self.publish(to_wire(event))

    def publish(self, body: dict[str, Any]) -> None:
        """Number, store and hand on one wire event; nothing follows the last event of an attempt."""
        with self.arrived:
            if self.ended or self._concluded:
                return
            self._concluded = body["type"] in LAST_EVENTS
            self.seq += 1
            body["seq"] = self.seq
            body["time"] = time.time()
            self._store(lambda: self.telemetry.record(body))
            self._ring.append(body)
            if body["type"] == "ack":
                self._acks[body["id"]] = body
            self.arrived.notify_all()

    def commit(self) -> None:
        """Make durable what was stored."""
        self._store(self.telemetry.commit)

    def end(self) -> None:
        """Let every reader know that no more will come, and close the store."""
        with self.arrived:
            self.ended = True
            self.arrived.notify_all()
        self._store(self.telemetry.close)

    # ---- reading -----------------------------------------------------------------------------------------------------

    def pull(self, after: int, wait_s: float, limit: int) -> dict[str, Any]:
        """The answer to a reader that has seen `after`: up to `limit` events, waiting up to `wait_s` seconds for one.

        `gap` says from where on events are kept here, when the reader has fallen behind; the store has the rest.
        """
        with self.arrived:
            self.arrived.wait_for(lambda: self.seq > after or self.ended, wait_s)
            oldest = self._ring[0]["seq"] if self._ring else self.seq + 1
            if after + 1 < oldest:
                return {"gap": oldest, "events": [], "ended": self.ended}
            # seq is dense, so the ring's first wanted event can be found by counting.
            skip = max(0, after + 1 - oldest)
            events = list(itertools.islice(self._ring, skip, skip + limit))
            ended = self.ended and (not events or events[-1]["seq"] == self.seq)
            return {"events": events, "ended": ended}

    def await_ack(self, identity: str, given_up: Callable[[], bool], patience_s: float) -> dict[str, Any] | None:
        """The acknowledgement of command `identity`; None where the stream ends before, or `given_up` comes true."""
        with self.arrived:
            self.arrived.wait_for(lambda: identity in self._acks or self.ended or given_up(), patience_s)
            return self._acks.pop(identity, None)

    # ---- what goes wrong ---------------------------------------------------------------------------------------------

    def say_once(self, message: str) -> None:
        """Log what the run survives, and keep it for `untold`; the same words count once."""
        if message not in self._said:
            self._said.add(message)
            log.error("%s; the run goes on", message)
            self._untold.append(message)

    def untold(self) -> Iterator[str]:
        """What to warn of at the next turn of the loop: a failed store must not store its own warning."""
        while self._untold:
            yield self._untold.popleft()

    def _store(self, write: Callable[[], None]) -> None:
        try:
            with self.arrived:
                write()
        except (sqlite3.Error, ValueError) as error:
            self.say_once(f"telemetry cannot be written: {error}")

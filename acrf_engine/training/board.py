"""A board that all ranks of a run read and write at any time, beside the collectives: signs of life, and last words.

It is a TCPStore of torch that rank 0 serves. A rank that dies takes its connections with it; its last words stay here.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from torch.distributed import DistError, TCPStore  # type: ignore[attr-defined]  # torch exports it without saying so

from acrf_engine.run.hardware import GpuReader, own_reading
from acrf_engine.run.ranks import Seat
from acrf_engine.training.ending import LastWords

BEAT_S = 0.5
SILENT_S = 3.0
"""A rank without a sign for so long is the one that died, where the others have lost somebody."""
GONE_S = 60.0
"""A rank without a sign for so long is gone, whatever the others think: its box, its network, or it was stopped."""
LAST_WORDS_S = 6.0


class Board:
    """One rank's end of the board; `seat` says whose. Raises DistError (torch) where rank 0 is gone."""

    def __init__(self, store: TCPStore, seat: Seat) -> None:
        self._store = store
        self.seat = seat
        self.host = socket.gethostname()
        self._seen: dict[int, tuple[bytes, float]] = {}

    @classmethod
    def opened(cls, address: str, seat: Seat, timeout_s: float) -> Board:
        """Rank 0's, which serves it at a free port."""
        return cls(TCPStore(address, 0, None, True, timedelta(seconds=timeout_s), wait_for_workers=False), seat)

    @classmethod
    def joined(cls, address: str, port: int, seat: Seat, timeout_s: float) -> Board:
        """Another rank's."""
        return cls(TCPStore(address, port, None, False, timedelta(seconds=timeout_s)), seat)

    @property
    def port(self) -> int:
        return int(self._store.port)

    def beat(self, reading: dict[str, Any]) -> None:
        """Give a sign of life, with what this rank sees of its own card."""
        self._store.set(f"beat/{self.seat.rank}", json.dumps({"at": time.monotonic(), **self.signed(reading)}))

    def signed(self, reading: dict[str, Any]) -> dict[str, Any]:
        """A reading with whose it is."""
        return {"rank": self.seat.rank, "host": self.host, "pid": os.getpid(), **reading}

    def beats(self) -> dict[int, dict[str, Any]]:
        """The last sign of every rank that has given one."""
        found = {}
        now = time.monotonic()
        for rank in range(self.seat.count):
            if rank != self.seat.rank and (raw := self._read(f"beat/{rank}")) is not None:
                if rank not in self._seen or self._seen[rank][0] != raw:
                    self._seen[rank] = (raw, now)
                found[rank] = json.loads(raw)
                del found[rank]["at"]
        return found

    def silent(self, seconds: float) -> list[LastWords]:
        """The ranks that have given no sign for so long, with words on their behalf."""
        beats, now = self.beats(), time.monotonic()
        return [
            LastWords(
                f"rank {rank} (pid {body['pid']} on {body['host']}) went without a word: killed, out of memory, or its "
                f"box is gone; see worker-rank-{rank}.log, continue with `acrf-tui resume`",
                kind="interrupted",
            )
            for rank, body in beats.items()
            if now - self._seen[rank][1] > seconds
        ]

    def say_last(self, words: LastWords) -> None:
        """Say why this rank ends. Of several the first counts: the others only lost it."""
        number = self._store.add("last words", 1)
        self._store.set(f"last words/{number}", json.dumps(asdict(words)))

    def last_words(self) -> LastWords | None:
        """The first that were said."""
        raw = self._read("last words/1")
        return None if raw is None else LastWords(**json.loads(raw))

    def tell(self, what: str) -> None:
        """Let everybody know that something is so."""
        self._store.set(f"so/{what}", "1")

    def told(self, what: str) -> bool:
        return bool(self._store.check([f"so/{what}"]))

    def _read(self, key: str) -> bytes | None:
        # `get` waits for a key, and holds up every other thread meanwhile.
        return bytes(self._store.get(key)) if self._store.check([key]) else None


def lost_somebody(error: BaseException) -> bool:
    """Whether a collective failed because another process is gone or silent."""
    text = str(error).lower()
    signs = ("gloo", "connection closed by peer", "connection reset", "nccl", "timed out waiting", "broken pipe")
    return isinstance(error, DistError) or (isinstance(error, RuntimeError) and any(sign in text for sign in signs))


def find_lost(board: Board) -> LastWords | None:
    """Who is to blame for a collective that failed: whoever said so, or has fallen silent. None: nobody is found."""
    until = time.monotonic() + LAST_WORDS_S
    while time.monotonic() < until:
        if (words := board.last_words()) is not None:
            return words
        if silent := board.silent(SILENT_S):
            return silent[0]
        time.sleep(0.1)
    return None


class Watch(threading.Thread):
    """Rank 0's eye on the others: ends the process where it waits for one that is gone and will not notice itself."""

    def __init__(self, board: Board, end: Callable[[LastWords], Any], on_gpu: bool) -> None:
        super().__init__(name="ranks", daemon=True)
        self._card = board.seat.local if on_gpu else None
        self._board = board
        self._end = end
        self.readings: dict[int, dict[str, Any]] = {}
        self._over = threading.Event()

    def run(self) -> None:
        reader = GpuReader()
        while not self._over.wait(BEAT_S):
            try:
                self.readings = {0: self._board.signed(own_reading(reader, self._card)), **self._board.beats()}
                lost = self._board.last_words() or next(iter(self._board.silent(GONE_S)), None)
            except DistError:
                return
            if lost is not None and not self._over.wait(2 * LAST_WORDS_S):
                self._end(lost)
                return

    def stop(self) -> None:
        self._over.set()

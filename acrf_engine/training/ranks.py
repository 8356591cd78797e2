"""Several processes that train one run, by accelerate: how they meet, what rank 0 orders, and what they exchange.

Rank 0 decides everything: commands, saving, what to do about a bad step. It orders each thing that all have to do
together, and the others wait for the next order; so all are at the same step boundary whatever happens. With one
process there is no process group, and nothing here does anything.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor

from acrf_engine.config import RunConfig
from acrf_engine.model.layout import ModelError
from acrf_engine.run.ranks import LOOPBACK, Seat
from acrf_engine.training.board import Board

FIRST_BYTES = 4096
"""An order up to this length travels in one message."""
KEEP_S = 2.0
"""An idle rank 0 gives a sign this often, so that waiting for an order never takes as long as a timeout."""


class Ranks:
    """All processes of a run, as this one sees them."""

    def __init__(self, seat: Seat = Seat(0, 1, 0, 1), board: Board | None = None) -> None:
        self.seat = seat
        self.board = board
        self._next_sign = 0.0

    @property
    def rank(self) -> int:
        return self.seat.rank

    @property
    def count(self) -> int:
        return self.seat.count

    @property
    def several(self) -> bool:
        return self.count > 1

    @property
    def main(self) -> bool:
        """Whether this process decides and writes."""
        return self.rank == 0

    # ---- orders ------------------------------------------------------------------------------------------------------

    def order(self, what: str, **values: Any) -> None:
        """Rank 0: have all others do something now. Elsewhere, and alone, nothing."""
        if self.several and self.main:
            self._send(json.dumps({"do": what, **values}).encode())
            self._next_sign = time.monotonic() + KEEP_S

    def keep_waiting(self) -> None:
        """Rank 0, called often while there is nothing to do together: let the others wait on."""
        if self.several and self.main and time.monotonic() > self._next_sign:
            self.order("wait")

    def next_order(self) -> dict[str, Any]:
        """All but rank 0: what to do next."""
        order: dict[str, Any] = json.loads(self._receive())
        return order

    def send_files(self, files: Mapping[str, bytes]) -> None:
        """Rank 0: hand out named bytes, right after an order that says so."""
        self._send(json.dumps([*files]).encode())
        for data in files.values():
            self._send(data)

    def receive_files(self) -> dict[str, bytes]:
        """All but rank 0: the counterpart of `send_files`."""
        return {name: self._receive() for name in json.loads(self._receive())}

    def _send(self, data: bytes) -> None:
        head = torch.zeros(FIRST_BYTES, dtype=torch.uint8)
        framed = len(data).to_bytes(8, "big") + data
        first = framed[:FIRST_BYTES]
        head[: len(first)] = torch.frombuffer(bytearray(first), dtype=torch.uint8)
        self._broadcast(head)
        if rest := framed[FIRST_BYTES:]:
            self._broadcast(torch.frombuffer(bytearray(rest), dtype=torch.uint8))

    def _receive(self) -> bytes:
        head = torch.zeros(FIRST_BYTES, dtype=torch.uint8)
        self._broadcast(head)
        raw = head.numpy().tobytes()
        length = int.from_bytes(raw[:8], "big")
        missing = 8 + length - FIRST_BYTES
        if missing <= 0:
            return raw[8 : 8 + length]
        rest = torch.zeros(missing, dtype=torch.uint8)
        self._broadcast(rest)
        return raw[8:] + rest.numpy().tobytes()

    @staticmethod
    def _broadcast(data: Tensor) -> None:
        from accelerate.utils import broadcast

        broadcast(data, from_process=0)  # in place; on the CPU, so that it never waits for a GPU

    # ---- numbers -----------------------------------------------------------------------------------------------------

    def gathered(self, values: Tensor) -> Tensor:
        """The same tensor of every rank, [ranks, ...], the same on all of them."""
        from accelerate.utils import gather

        stacked: Tensor = gather(values[None].contiguous())
        return stacked


def join(config: RunConfig, seat: Seat, device: torch.device) -> Ranks:
    """Meet the other processes. Raises ModelError where this one has no GPU, RuntimeError where another is missing.

    The process group is gloo on the CPU; between GPUs gradients go by nccl, and orders by gloo.
    """
    if device.type == "cuda" and seat.local >= torch.cuda.device_count():
        raise ModelError(
            f"distributed.num_processes: process {seat.local + 1} of this box has no GPU, torch sees "
            f"{torch.cuda.device_count()} (start one process a GPU)"
        )
    from accelerate import PartialState

    wanted = config.distributed
    # Set, so that accelerate keeps the number of threads that was chosen already.
    os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))
    options: dict[str, Any] = {"timeout": timedelta(seconds=wanted.timeout)}
    if device.type == "cuda":
        options["backend"] = "gloo" if wanted.backend == "gloo" else "cpu:gloo,cuda:nccl"
    PartialState(cpu=device.type == "cpu", **options)
    ranks = Ranks(seat)
    address = os.environ.get("MASTER_ADDR") or LOOPBACK
    if ranks.main:
        ranks.board = Board.opened(address, seat, wanted.timeout)
        ranks.order("meet", port=ranks.board.port)
    else:
        ranks.board = Board.joined(address, ranks.next_order()["port"], seat, wanted.timeout)
    return ranks

"""A rank other than 0: it prepares the same run, does what rank 0 orders, and writes nothing but its own log."""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acrf_engine.config import RunConfig, load_config
from acrf_engine.run.folder import RunFolder
from acrf_engine.run.ranks import Seat, log_of
from acrf_engine.run.wire import clip_text
from acrf_engine.training.ending import LastWords, for_the_user, is_the_users

if TYPE_CHECKING:
    from acrf_engine.training.trainer import Trainer

log = logging.getLogger("acrf.rank")

LOST_EXIT = 75
POLL_S = 0.1


class Over(Exception):
    """Rank 0 has ended, in order."""


class Pulse(threading.Thread):
    """Signs of life on the board, with what this rank sees of its card. Ends the process soon after rank 0 is gone."""

    def __init__(self, board: Any, on_gpu: bool) -> None:
        super().__init__(name="pulse", daemon=True)
        self._board = board
        self._on_gpu = on_gpu

    def run(self) -> None:
        from torch.distributed import DistError

        from acrf_engine.run.hardware import GpuReader, own_reading
        from acrf_engine.training.board import BEAT_S, LAST_WORDS_S

        reader = GpuReader()
        wait = threading.Event()
        while not wait.wait(BEAT_S):
            try:
                self._board.beat(own_reading(reader, self._board.seat.local if self._on_gpu else None))
            except DistError:
                wait.wait(LAST_WORDS_S)  # the main thread may end by itself
                log.error("rank 0 is gone, leaving")
                _leave(LOST_EXIT)


def main(seat: Seat, run_folder: str = "", config: RunConfig | None = None) -> None:
    """Entry of such a process: of the supervisor's with the run's folder, of another launcher's with the config."""
    faulthandler.enable()
    if run_folder:
        _log_to(log_of(RunFolder(run_folder), seat.rank))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s", stream=sys.stderr)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):  # rank 0 says when it is over
        signal.signal(number, signal.SIG_IGN)
    board: list[Any] = []
    code = 0
    try:
        obey(join_run(seat, config or load_config(RunFolder(run_folder).config), board, bool(run_folder)))
    except Over:
        pass
    except BaseException as error:
        traceback.print_exc()
        code = _say_why(seat, board, error)
    _leave(code)


def join_run(seat: Seat, config: RunConfig, boards: list[Any], has_log: bool) -> Trainer:
    """Meet the others and prepare the run that rank 0 tells of. The board is put into `boards` as soon as there is one.

    Raises Over where rank 0 ends before that.
    """
    import torch

    from acrf_engine.model.device import choose_device
    from acrf_engine.training.preparation import prepare
    from acrf_engine.training.ranks import join
    from acrf_engine.training.threads import training_threads
    from acrf_engine.training.trainer import Trainer

    torch.set_num_threads(training_threads(seat.neighbours))
    device = choose_device(config.memory.device)
    ranks = join(config, seat, device)
    board = ranks.board
    assert board is not None
    boards.append(board)
    Pulse(board, device.type == "cuda").start()
    run = ranks.next_order()
    folder = RunFolder(run["folder"])
    if not has_log and folder.path.is_dir():
        _log_to(log_of(folder, seat.rank))
    log.info("rank %s of %s, process %s on %s", seat.rank, seat.count, os.getpid(), board.host)
    config = RunConfig.model_validate(run["config"], strict=False)

    def over() -> None:
        if board.told("over"):
            raise Over

    # Where boxes share a cache, one fills it for all; where they do not, the first process of each box fills its own.
    wait_for = 0 if seat.local == 0 else seat.first_of_box
    while not board.told(f"cached {wait_for}"):
        over()
        threading.Event().wait(POLL_S)

    def cached() -> None:
        if seat.local == 0:
            board.tell(f"cached {seat.rank}")

    prepared = prepare(config, lambda _event: None, over, fresh=run["fresh"], cached=cached)
    return Trainer(config, folder, prepared, lambda _event: None, ranks)


def obey(trainer: Trainer) -> None:
    """Do what rank 0 orders, until it orders the end."""
    import torch

    from acrf_engine.training.recovery import ADVICE_FOR_SEVERAL, RankOutOfMemory
    from acrf_engine.training.trainer import NonFinite

    try:
        while True:
            order = trainer.ranks.next_order()
            match order.pop("do"):
                case "step":
                    trainer.take_position(**order)
                    try:
                        trainer.train_step()
                    except NonFinite as error:  # rank 0 has seen the same, and decides
                        log.warning("%s", error)
                    except torch.OutOfMemoryError as error:
                        raise RankOutOfMemory(f"step {trainer.step + 1}: {ADVICE_FOR_SEVERAL}") from error
                case "go on":
                    trainer.receive_state()
                case "end":
                    return
    finally:
        trainer.close()


def _say_why(seat: Seat, boards: list[Any], error: BaseException) -> int:
    """Tell the others why this rank ends; returns its exit status."""
    from acrf_engine.training.board import lost_somebody

    if lost_somebody(error):  # whoever is to blame has said so, or cannot
        return LOST_EXIT
    kind = "data" if is_the_users(error) else "failed"
    for board in boards:
        try:
            message = f"rank {seat.rank} on {board.host}: {for_the_user(error)}"
            board.say_last(LastWords(message, clip_text(traceback.format_exc()), kind))
        except RuntimeError:
            log.exception("rank 0 cannot be told")
    return 2 if kind == "data" else 1


def _log_to(path: str) -> None:
    file = os.open(Path(path), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.close(file)


def _leave(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)

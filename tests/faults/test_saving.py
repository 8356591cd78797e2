"""A checkpoint is complete and verified, or not there, whenever its writer dies."""

from __future__ import annotations

import builtins
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nursery import answer_of, verifies

KEEP = 2


def snapshot(step: int, serial: int, size: int = 8) -> Any:
    import torch

    from acrf_engine.training.checkpoint import Snapshot

    return Snapshot({"a": torch.full((size, size), float(serial))}, {"state": {}}, {"step": step, "serial": serial})


# ---- killed from outside, at random ----------------------------------------------------------------------------------


def save_for_ever(folder: Path, pipe: int, step: int, serial: int) -> None:
    """Save as a run does, telling each save's begin, its being durable and its end; every third one is saved again."""
    from acrf_engine.training import checkpoint

    while True:
        serial += 1
        step += serial % 3 != 0
        os.write(pipe, f"begin {step} {serial}\n".encode())
        checkpoint.write(folder, step, snapshot(step, serial, size=512))
        os.write(pipe, f"saved {step} {serial}\n".encode())
        checkpoint.rotate(folder, KEEP)
        os.write(pipe, f"end {step} {serial}\n".encode())


def hammer(folder_name: str, wanted: int, seed: int) -> tuple[int, int, list[str]]:
    """Kill savers until `wanted` died inside a save; how many saves were announced, how many died, what was wrong."""
    from acrf_engine.training import checkpoint

    folder, dice = Path(folder_name), random.Random(seed)
    in_place: dict[int, int] = {}
    landed = saves = step = serial = 0
    wrong: list[str] = []
    while landed < wanted and not wrong:
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            save_for_ever(folder, writer, step, serial)
        os.close(writer)
        lines = os.fdopen(reader)
        told = [lines.readline() for _ in range(1 + 3 * dice.randrange(3))]
        time.sleep(dice.random() * 0.02)  # where in the save it dies
        os.kill(pid, signal.SIGKILL)
        told += lines.readlines()
        os.waitpid(pid, 0)
        lines.close()
        for what, told_step, told_serial in map(str.split, told):
            step, serial = int(told_step), int(told_serial)
            if what == "saved":
                in_place[step] = serial
                saves += 1
        landed += what != "end"

        if half := [path.name for path in folder.glob("step-*") if not verifies(path)]:
            wrong.append(f"{half}: a half one has a checkpoint's name")
        checkpoint.clean(folder)
        if left := [name for name in os.listdir(folder) if not name.startswith("step-")]:
            wrong.append(f"left after the clean-up: {left}")
        found = next(checkpoint.verified(folder), None)
        if found is not None and found[1].state["serial"] == serial:
            in_place[step] = serial  # it died between the rename and its telling
        for expected in sorted(in_place)[-KEEP:]:
            path = checkpoint.checkpoint_path(folder, expected)
            if not path.exists() or checkpoint.read(path).state["serial"] not in (in_place[expected], serial):
                wrong.append(
                    f"step {expected} is not {in_place[expected]} after {told[-3:]}: {sorted(os.listdir(folder))}"
                )
        if in_place and (found is None or found[1].state["step"] < max(in_place)):
            wrong.append(f"the newest is older than {max(in_place)}")
    return landed, saves, wrong


@pytest.mark.fault("kill -9 inside a save")
def test_a_writer_killed_inside_a_save_loses_nothing_that_it_announced(
    tmp_path: Path, trials: Callable[[int, int], int], row: Any
) -> None:
    """Only kills between a save's begin and its end count. After each, whatever has a checkpoint's name verifies, what
    was announced is there (but for rotation), the newest is no older, and the clean-up leaves nothing temporary."""
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    landed, saves, wrong = answer_of(hammer, str(folder), trials(12, 150), 5)
    assert wrong == []
    assert saves > landed / 4
    row.trials = landed


# ---- dead before every single call -----------------------------------------------------------------------------------

CALLS = ("open", "fsync", "rename", "replace", "unlink", "remove", "rmdir", "mkdir", "close")


class Mortal:
    """Kills this process just before its k-th call to the file system; a write counts twice, before and in its middle.

    k 0 lives on, and counts.
    """

    def __init__(self, k: int) -> None:
        self.k = k
        self.count = 0

    def __call__(self) -> None:
        self.count += 1
        if self.count == self.k:
            os.kill(os.getpid(), signal.SIGKILL)

    def install(self) -> None:
        from acrf_engine.training import checkpoint

        for name in CALLS:
            setattr(os, name, self._before(getattr(os, name)))
        checkpoint.open = self._open

    def _before(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            self()
            return call(*arguments, **options)

        return counted

    def _open(self, *arguments: Any, **options: Any) -> Any:
        file = builtins.open(*arguments, **options)  # noqa: SIM115 - whoever called closes it
        mortal = self

        class Slow:
            def __enter__(self) -> Any:
                return self

            def __exit__(self, *_: Any) -> None:
                file.close()

            def write(self, data: bytes) -> None:
                mortal()
                file.write(data[: len(data) // 2])
                file.flush()
                mortal()
                file.write(data[len(data) // 2 :])

            def __getattr__(self, name: str) -> Any:
                return getattr(file, name)

        return Slow()


def save(folder: Path, step: int, serial: int) -> None:
    from acrf_engine.training import checkpoint

    checkpoint.write(folder, step, snapshot(step, serial))
    (folder.parent / "announced").write_text(str(serial))  # by another way than the calls that are counted
    checkpoint.rotate(folder, KEEP)


def first_save(folder: Path) -> None:
    save(folder, 5, 1)


def next_save(folder: Path) -> None:
    save(folder, 20, 9)


def save_again(folder: Path) -> None:
    save(folder, 10, 9)


def clean_up(folder: Path) -> None:
    from acrf_engine.training import checkpoint

    checkpoint.clean(folder)


def prepare(act: str, folder: Path) -> dict[int, int]:
    """What is on disk before `act`: serial by step."""
    if act == "first_save":
        return {}
    save(folder, 5, 1)
    save(folder, 10, 2)
    if act == "clean_up":
        for name in (".tmp-20-99", ".tmp-20-100", ".trash-step-000001-99", ".former-step-000005"):
            shutil.copytree(folder / "step-000005", folder / name)
        os.rename(folder / "step-000010", folder / ".former-step-000010")
    return {5: 1, 10: 2}


def dying(act: Callable[[Path], None], folder: Path, k: int) -> int:
    """`act` in a child that dies before call k; its exit status as os.waitpid gives it."""
    pid = os.fork()
    if pid == 0:
        mortal = Mortal(k)
        mortal.install()
        act(folder)
        os._exit(mortal.count if k == 0 else 0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def sweep(act_name: str, scratch: str, stride: int) -> tuple[int, list[str]]:
    """Die before every call in turn (each `stride`-th); the number of deaths, and what was wrong after them."""
    from acrf_engine.training import checkpoint

    act = globals()[act_name]
    wrong: list[str] = []
    deaths = 0
    calls = 1
    k = 0
    while k <= calls:
        base = Path(scratch) / f"{act_name}-{k}"
        folder = base / "checkpoints"
        folder.mkdir(parents=True)
        before = prepare(act_name, folder)
        (base / "announced").unlink(missing_ok=True)
        code = dying(act, folder, k)
        if k == 0:
            calls = code
        else:
            deaths += code == -signal.SIGKILL
        announced = (base / "announced").exists()
        half = [path.name for path in folder.glob("step-*") if not verifies(path)]
        checkpoint.clean(folder)
        found = next(checkpoint.verified(folder), None)
        serial = None if found is None else found[1].state["serial"]
        left = sorted(name for name in os.listdir(folder) if not name.startswith("step-"))
        kept = {checkpoint.step_of(path): checkpoint.read(path).state["serial"] for path in folder.glob("step-*")}
        allowed = {9 if act_name != "first_save" else 1} if announced else {2, 9} if before else {None, 1}
        if half or left or serial not in allowed or (before and len(kept) < KEEP):
            wrong.append(f"{act_name}, call {k} of {calls}: half {half}, left {left}, newest {serial}, kept {kept}")
        shutil.rmtree(base)
        k += stride if k else 1
    return deaths, wrong


@pytest.mark.fault("Death before every single file-system call of a save, a rotation, a clean-up")
@pytest.mark.parametrize("act", [first_save, next_save, save_again, clean_up])
def test_a_writer_that_dies_before_any_call(
    tmp_path: Path, trials: Callable[[int, int], int], row: Any, act: Callable[[Path], None]
) -> None:
    """After each death: no half checkpoint under a checkpoint's name, what was announced is the newest, what was there
    before is there or has given way to a newer one, and the clean-up, itself interrupted anywhere, leaves nothing."""
    stride = 1 + trials(6, 0)
    deaths, wrong = answer_of(sweep, act.__name__, str(tmp_path), stride)
    assert wrong == []
    assert deaths * stride >= 14
    row.trials = deaths

"""Disks that are full, read-only, or gone, and a history that was torn: training goes on, loudly."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from injections import at_every_step, poison_the_dice
from nursery import GOLDEN_STEPS, Child, Nursery, assert_golden, assert_repeats, newest_good

from acrf_engine.run.telemetry import TelemetryReader, TelemetryWriter

MIB = 2**20


def journal_on(folder: str, size: int) -> tuple[int, list[int]]:
    """Write a journal on a disk of its own while that is full, and again once there is room; how many writes failed,
    and the sequence numbers of what is stored."""
    disk = Disk(Path(folder), size)
    try:
        writer = TelemetryWriter(disk.path / "telemetry.db")
        failed = 0

        def write(numbers: range) -> None:
            nonlocal failed
            for seq in numbers:
                kind = "hardware" if seq % 3 else "warning"
                try:
                    writer.record({"type": kind, "message": "x" * 500, "step": 0, "seq": seq, "time": 1.0})
                    if seq % 7 == 0:
                        writer.commit()
                except sqlite3.Error:
                    failed += 1

        write(range(1, 50))
        disk.fill()
        write(range(50, 400))
        disk.make_room()
        write(range(400, 500))
        writer.close()
        stored = TelemetryReader(disk.path / "telemetry.db").after(0, 10_000)
        return failed, [body["seq"] for body in stored]
    finally:
        disk.unmount()


class Disk:
    """A small file system of its own."""

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        path.mkdir(exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("mounting is not permitted here")

    def fill(self, left: int = 0) -> None:
        """Leave no more than `left` bytes."""
        free = shutil.disk_usage(self.path).free
        with contextlib.suppress(OSError), (self.path / "filler").open("ab") as file:
            file.write(bytes(max(0, free - left)))
            file.flush()

    def make_room(self) -> None:
        (self.path / "filler").unlink()

    def remount(self, how: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{how}", str(self.path)], check=True)

    def unmount(self) -> None:
        subprocess.run(["umount", "-l", str(self.path)], check=True)


@pytest.fixture
def make_disk(nursery: Nursery, tmp_path: Path) -> Iterator[Callable[..., Disk]]:
    """Makes small disks; they are taken away after the runs on them have ended."""
    made: list[Disk] = []

    def make(path: Path | None = None, size: int = 16 * MIB) -> Disk:
        made.append(Disk(path or tmp_path / "disk", size))
        return made[-1]

    yield make
    nursery.abandon()
    for disk in made:
        disk.unmount()


# ---- full ------------------------------------------------------------------------------------------------------------


@pytest.mark.fault("A full disk")
def test_on_a_full_disk_training_goes_on_and_saves_again_once_there_is_room(
    nursery: Nursery, golden: Child, row: Any, make_disk: Callable[..., Disk]
) -> None:
    """The whole run folder is on the disk (checkpoints, history, status, log). While it is full a warning says so and
    names the room needed, and no half file is left; with room everything is saved and written down again; the numbers
    are the straight run's."""
    disk = make_disk()
    run = nursery.create(runs=disk.path, steps=GOLDEN_STEPS, checkpoint={"every": 5, "keep": 2})
    run.start()
    run.until(lambda body: body["type"] == "checkpoint" and body["step"] >= 10)
    disk.fill()
    warned = run.until_warning("checkpoint failed, training goes on")
    assert "make room" in warned["message"]
    run.until(lambda body: body["type"] == "warning" and body["step"] > warned["step"])
    assert newest_good(run.folder.checkpoints) >= 10
    Child.wait_for(lambda: not list(run.folder.checkpoints.glob(".tmp-*")), "the half checkpoint is removed")
    disk.make_room()
    again = run.until_type("checkpoint")
    assert again["step"] > warned["step"]
    Child.wait_for(lambda: run.recorded()["step"] >= again["step"], "status.json is written again")
    assert run.end() == 0
    assert run.steps() == list(range(1, GOLDEN_STEPS + 1))
    assert run.status()["state"] == "finished"
    assert run.digests(GOLDEN_STEPS) == golden.digests(GOLDEN_STEPS)
    # History may lack what came while there was no room; it has to go on afterwards.
    trace, expected = run.trace(), golden.trace()
    assert trace.items() <= expected.items()
    assert set(range(again["step"] + 1, GOLDEN_STEPS + 1)) <= set(trace)
    assert run.temporaries() == []
    row.lost_steps = 0


def assert_ends_as(golden: Child, run: Child, total: int, row: Any) -> None:
    """The run ends well, with the straight run's LoRA and optimizer, and no step was lost."""
    assert run.end() == 0
    assert run.digests(total) == golden.digests(total)
    row.lost_steps = 0


@pytest.mark.full_only
@pytest.mark.fault("A full disk")
def test_on_a_full_disk_a_run_may_pause_instead(
    nursery: Nursery, golden: Child, row: Any, make_disk: Callable[..., Disk]
) -> None:
    """`checkpoint.on_error: pause`: the run pauses with the reason; `resume` and `checkpoint` after room was made go on
    and save; the numbers are the straight run's."""
    disk = make_disk()
    run = nursery.create(runs=disk.path, steps=30, checkpoint={"every": 5, "on_error": "pause"})
    run.start()
    run.until_step(7)
    disk.fill()
    state = run.until_state("paused")
    assert "checkpoint" in state["reason"]
    assert not run.command("checkpoint").ok
    disk.make_room()
    saved = run.command("checkpoint")
    assert saved.ok, saved.message
    assert run.newest_checkpoint() == saved.step
    assert run.command("resume").ok
    assert_ends_as(golden, run, 30, row)


@pytest.mark.fault("A full disk")
def test_history_goes_on_once_there_is_room(tmp_path: Path, row: Any) -> None:
    """Hundreds of events come while the history's disk is full. What came before is kept, and everything after is
    written again."""
    failed, stored = journal_on(str(tmp_path / "disk"), 2 * MIB)
    assert failed > 100
    assert stored[:40] == list(range(1, 41))
    assert stored[-100:] == list(range(400, 500))


@pytest.mark.full_only
@pytest.mark.fault("A full disk")
def test_a_full_disk_at_the_very_end(nursery: Nursery, golden: Child, row: Any, make_disk: Callable[..., Disk]) -> None:
    """The last checkpoint finds no room: the run waits, says so, and finishes once there is some."""
    disk = make_disk()
    run = nursery.create(runs=disk.path, steps=30, checkpoint={"every": 0}).start()
    run.until_step(5)
    disk.fill()
    run.until_warning("waits for room")
    disk.make_room()
    assert run.command("resume").ok
    assert_ends_as(golden, run, 30, row)


@pytest.mark.full_only
@pytest.mark.fault("A full disk")
def test_a_run_killed_on_a_full_disk_resumes(
    nursery: Nursery, golden: Child, row: Any, make_disk: Callable[..., Disk]
) -> None:
    """Everything is killed while the disk is full; with room the run resumes from its newest checkpoint."""
    disk = make_disk()
    run = nursery.create(runs=disk.path, steps=40, checkpoint={"every": 5}).start()
    run.until(lambda body: body["type"] == "checkpoint" and body["step"] >= 10)
    disk.fill()
    run.until_type("warning")
    run.kill_supervisor()
    run.process.join()
    Child.wait_for(lambda: run.members() == [], "the worker has left")
    disk.make_room()
    run.start(inject=poison_the_dice)
    assert run.until_type("plan")["start_step"] >= 10
    assert_ends_as(golden, run, 40, row)


@pytest.mark.full_only
@pytest.mark.fault("kill -9 of the supervisor")
def test_a_half_status_of_a_killed_supervisor_is_removed(nursery: Nursery, row: Any) -> None:
    """The temporary file of a supervisor that died in writing status.json is gone after the next attempt."""
    run = nursery.create(steps=2)
    (run.folder.path / ".status.json.999999.tmp").write_text("{")
    assert run.start().end() == 0
    assert run.temporaries() == []


@pytest.mark.fault("RLIMIT_FSIZE of the worker")
def test_a_limit_of_file_size_costs_checkpoints_only(nursery: Nursery, golden: Child, row: Any) -> None:
    """Between steps 7 and 17 the worker may write no file above 4 KB: each due checkpoint warns, training goes on, and
    the next after it is saved; the numbers are the straight run's."""
    run = nursery.start(steps=30, inject=limit_files)
    assert run.end() == 0
    warnings = [body["message"] for body in run.of("warning")]
    assert len(warnings) == 2
    assert all("File too large" in told for told in warnings), warnings
    assert [body["step"] for body in run.of("checkpoint")] == [5, 20, 25, 30]
    assert_golden(run, golden, 30)
    assert run.temporaries() == []
    row.lost_steps = 0


def limit_files() -> None:
    def act(trainer: Any) -> None:
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096 if 7 <= trainer.step < 17 else hard, hard))

    at_every_step(act)


# ---- read-only -------------------------------------------------------------------------------------------------------


@pytest.mark.full_only
@pytest.mark.fault("A disk that becomes read-only")
def test_checkpoints_on_a_disk_that_becomes_read_only(
    nursery: Nursery, golden: Child, row: Any, make_disk: Callable[..., Disk]
) -> None:
    """The checkpoints' file system is remounted read-only in mid-run, then writable again: a warning for each due
    checkpoint, training goes on, and the next is saved."""
    run = nursery.create(steps=50)
    run.folder.checkpoints.mkdir()
    disk = make_disk(run.folder.checkpoints)
    run.start()
    run.until(lambda body: body["type"] == "checkpoint" and body["step"] >= 10)
    disk.remount("ro")
    told = run.until_type("warning")
    assert "Read-only file system" in told["message"]
    disk.remount("rw")
    assert run.until_type("checkpoint")["step"] > told["step"]
    assert run.end() == 0
    assert_golden(run, golden, 50)
    assert run.temporaries() == []
    row.lost_steps = 0


def remove(folder: Path) -> None:
    """rm -rf, again and again until the run writes nothing into it meanwhile."""
    while folder.exists():
        shutil.rmtree(folder, ignore_errors=True)


# ---- gone ------------------------------------------------------------------------------------------------------------


@pytest.mark.fault("The run folder is removed under the run")
def test_a_run_whose_folder_is_removed_says_so_and_ends(nursery: Nursery, row: Any) -> None:
    """rm -rf in mid-run: whoever follows is told, nothing is made anew in its place, the run ends within seconds, for
    nothing could be saved any more, and no process is left."""
    run = nursery.start(steps=20_000, checkpoint={"every": 0})
    run.until_step(8)
    remove(run.folder.path)
    run.until_warning("the run folder is gone")
    assert run.end() == 1
    assert "the run folder was removed" in run.last()["error"]
    assert run.members() == []
    assert not run.folder.path.exists()


@pytest.mark.full_only
@pytest.mark.fault("The run folder is removed under the run")
def test_a_new_run_in_the_place_of_a_removed_one_is_not_disturbed(nursery: Nursery, golden: Child, row: Any) -> None:
    """rm -rf, and a new run of the same name while the old one still trains: no file of the old one gets into it."""
    old = nursery.create(name="same", steps=20_000, checkpoint={"every": 5}).start()
    old.until_step(8)
    remove(old.folder.path)
    new = nursery.create(name="same", steps=30).start()
    assert new.end() == 0
    assert old.end() == 1
    assert_repeats(new, golden, 30)
    assert new.checkpoints() == [20, 25, 30]
    assert new.status()["state"] == "finished"
    assert new.status()["total_steps"] == 30


# ---- torn history ----------------------------------------------------------------------------------------------------


@pytest.mark.fault("A torn history (telemetry.db, its write-ahead log)")
@pytest.mark.parametrize("which", ["telemetry.db", pytest.param("telemetry.db-wal", marks=pytest.mark.full_only)])
def test_a_torn_history_never_keeps_a_run_from_going_on(
    nursery: Nursery, golden: Child, row: Any, trials: Callable[[int, int], int], which: str
) -> None:
    """Everything is killed, and the tail of the file is cut at a random place: what is left is read or said to be
    damaged; the run resumes from its checkpoint and ends as the straight run, and no sequence number comes twice."""
    base = nursery.start(steps=40)
    base.until_step(22)
    if which == "telemetry.db":  # whole and alone, because its supervisor has closed it
        assert base.command("stop").ok
        base.wait()
    else:
        worker = base.worker_pid()
        base.kill_supervisor()
        os.kill(worker, signal.SIGKILL)
        base.process.join()
    Child.wait_for(lambda: base.members() == [], "all are gone")
    dice = random.Random(3)
    row.trials = trials(1, 12)
    row.lost_steps = 0
    damaged = 0
    for trial in range(row.trials):
        name = f"torn-{which.rpartition('-')[2]}-{trial}"
        run = nursery.create(name=name, steps=40)
        shutil.copytree(base.folder.path, run.folder.path, dirs_exist_ok=True)
        torn = run.folder.path / which
        os.truncate(torn, dice.randrange(torn.stat().st_size))
        history = TelemetryReader(run.folder.telemetry).history()
        assert all(0 < step <= 40 for step in history.steps.step)
        run.start(inject=poison_the_dice)
        plan = run.read_on(lambda body: body["type"] == "plan")
        assert plan is not None, f"{run.status()}\n{run.log()[-2000:]}"
        assert plan["start_step"] == base.newest_checkpoint()
        assert run.end() == 0, run.log()[-2000:]
        assert run.digests(40) == golden.digests(40)
        history = TelemetryReader(run.folder.telemetry).history()
        assert list(history.steps.step)[-1] == 40
        told_of = [event for event in history.events if "history was damaged" in getattr(event, "message", "")]
        assert bool(told_of) == (run.folder.path / "telemetry.db.damaged").exists()
        damaged += bool(told_of)
        told = run.trace()
        assert {step: told[step] for step in range(plan["start_step"] + 1, 41)} == {
            step: golden.trace()[step] for step in range(plan["start_step"] + 1, 41)
        }
        assert len(set(run.seqs())) == len(run.seqs())
        run.abandon()
        remove(run.folder.path)
    assert bool(damaged) == (which == "telemetry.db"), "SQLite repairs its own log, and nothing else"

"""The supervisor is stopped, killed, raced, or mistaken for another process; commands come at bad moments."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from injections import (
    both,
    die_after_start,
    empty_cache,
    poison_the_dice,
    raise_always_at,
    slow_saves,
    small_link,
    wait_in_back_off,
)
from nursery import Child, Nursery, assert_repeats

from acrf_engine.protocol import Ack
from acrf_engine.run.deaths import process_token
from acrf_engine.run.folder import Status

PR_SET_CHILD_SUBREAPER = 36
ORPHANED_EXIT = 75


def assert_dense(run: Child) -> None:
    """No event of this attempt is missing from what was pulled."""
    seqs = [body["seq"] for body in run.events]
    assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))


# ---- stopped ---------------------------------------------------------------------------------------------------------


@pytest.mark.fault("SIGSTOP of the supervisor")
def test_a_stopped_supervisor_stops_nothing(nursery: Nursery, golden: Child, row: Any) -> None:
    """The supervisor is stopped for as long as the worker takes to train on and save three times. Once it continues,
    every step, checkpoint and the end arrive, without a gap in seq, and nothing was trained twice."""
    run = nursery.start(steps=50)
    run.until_step(8)
    run.kill_supervisor(signal.SIGSTOP)
    Child.wait_for(lambda: run.newest_checkpoint() >= 25, "training goes on without the supervisor")
    run.kill_supervisor(signal.SIGCONT)
    assert run.end() == 0
    assert run.steps() == list(range(1, 51))
    assert [body["step"] for body in run.of("checkpoint")] == list(range(5, 51, 5))
    assert [body["merged"] for body in run.of("step")] == [0] * 50
    assert_dense(run)
    assert_repeats(run, golden, 50)
    row.lost_steps = 0


@pytest.mark.fault("SIGSTOP of the supervisor")
def test_where_the_link_is_full_steps_are_merged_and_nothing_else(nursery: Nursery, golden: Child, row: Any) -> None:
    """A link of 16 events and 4 KB: while the supervisor is stopped training goes on, step events are merged and say
    how many they stand for, and every checkpoint arrives."""
    run = nursery.start(steps=60, inject=small_link)
    run.until_step(4)
    run.kill_supervisor(signal.SIGSTOP)
    Child.wait_for(lambda: run.newest_checkpoint() >= 50, "training goes on without the supervisor")
    run.kill_supervisor(signal.SIGCONT)
    assert run.end() == 0
    told = run.of("step")
    assert len(told) < 60
    assert len(told) + sum(body["merged"] for body in told) == 60
    assert [body["step"] for body in run.of("checkpoint")] == list(range(5, 61, 5))
    assert_dense(run)
    expected = golden.trace()
    assert run.trace().items() <= expected.items()
    assert run.digests(60) == golden.digests(60)
    row.lost_steps = 0


@pytest.mark.full_only
@pytest.mark.fault("SIGSTOP of the supervisor")
def test_a_worker_that_ends_meanwhile_is_still_heard(nursery: Nursery, golden: Child, row: Any) -> None:
    """The worker finishes while the supervisor is stopped and the link is full, and waits some seconds to be heard: the
    run is `finished`, not a death without a word."""
    run = nursery.start(steps=30, inject=small_link)
    run.until_step(4)
    run.kill_supervisor(signal.SIGSTOP)
    worker = run.recorded()["worker_pid"]
    Child.wait_for(lambda: run.folder.final_lora().exists(), "the run has come to its end")
    # Longer than a dead reader is waited for.
    with pytest.raises(AssertionError):
        Child.wait_for(lambda: not alive(worker), patience_s=4.0)
    run.kill_supervisor(signal.SIGCONT)
    assert run.end() == 0, run.status()
    assert run.status()["state"] == "finished"
    assert [body["step"] for body in run.of("checkpoint")] == list(range(5, 31, 5))
    row.lost_steps = 0


def alive(pid: int) -> bool:
    return bool(process_token(pid))


# ---- killed ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def subreaper() -> Iterator[None]:
    """Orphans become ours, so that their exit status can be seen."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    yield
    libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


@pytest.mark.fault("kill -9 of the supervisor")
def test_the_worker_of_a_killed_supervisor_saves_and_leaves_with_75(
    nursery: Nursery, golden: Child, row: Any, subreaper: None
) -> None:
    """The worker saves at its next step and leaves with status 75; the run shows `interrupted` and no pid; the resumed
    run repeats the straight one and does no step again."""
    run = nursery.start(steps=40, checkpoint={"every": 0})
    told = run.until_step(8)["step"]
    worker = run.recorded()["worker_pid"]
    run.kill_supervisor()
    run.end()
    _, how = os.waitpid(worker, 0)
    assert os.waitstatus_to_exitcode(how) == ORPHANED_EXIT
    status = run.status()
    assert (status["state"], status["worker_pid"]) == ("interrupted", None)
    assert "supervisor" in status["error"]
    saved = run.newest_checkpoint()
    assert saved == status["step"] >= told
    run.start(inject=poison_the_dice)
    assert run.until_type("plan")["start_step"] == saved
    assert run.end() == 0
    expected = golden.trace()
    assert {step: run.trace()[step] for step in range(saved + 1, 41)} == {
        step: expected[step] for step in range(saved + 1, 41)
    }
    assert len(set(run.seqs())) == len(run.seqs())
    row.lost_steps = 0


@pytest.mark.full_only
@pytest.mark.fault("kill -9 of the supervisor")
def test_a_resume_waits_for_the_orphan_that_still_saves(nursery: Nursery, golden: Child, row: Any) -> None:
    """Saves take 1.5 s and the resume comes at once: two workers never share the run, the second begins where the
    orphan's checkpoint stands, and the straight run is repeated."""
    run = nursery.start(steps=30, checkpoint={"every": 0}, inject=partial(slow_saves, 1.5))
    run.until_step(8)
    orphan = run.recorded()["worker_pid"]
    run.kill_supervisor()
    run.process.join()
    assert alive(orphan)
    run.start(inject=poison_the_dice)
    assert not alive(orphan)
    saved = run.newest_checkpoint()
    assert saved >= 8
    assert run.until_type("plan")["start_step"] == saved
    assert run.end() == 0
    assert run.status()["state"] == "finished"
    expected = golden.trace()
    assert run.trace().items() <= expected.items()
    assert run.digests(30) == golden.digests(30)
    row.lost_steps = 0


@pytest.mark.fault("kill -9 of the supervisor")
def test_a_worker_that_nobody_knows_takes_no_step(nursery: Nursery, golden: Child, row: Any) -> None:
    """Killed in the moment after the worker's start, before its pid is written down, and resumed at once: the orphan
    leaves by itself, no step is taken twice, and the resumed run goes on along the straight run."""
    run = nursery.create(steps=30).start(inject=die_after_start, wait=False)
    run.process.join()
    (orphan,) = run.members()
    assert run.start().end() == 0
    assert_repeats(run, golden, 30)
    assert run.steps() == list(range(1, 31))
    run.wait_for(lambda: orphan not in run.members(), "the orphan leaves")
    row.lost_steps = 0


@pytest.mark.full_only
@pytest.mark.fault("SIGTERM of the supervisor")
def test_a_terminated_supervisor_saves_and_stops(nursery: Nursery, golden: Child, row: Any) -> None:
    """The last step is saved, the state is `stopped`, the exit status 0, and nothing is left running."""
    run = nursery.start(steps=100, checkpoint={"every": 0})
    run.until_step(8)
    run.kill_supervisor(signal.SIGTERM)
    assert run.end() == 0
    assert run.status()["state"] == "stopped"
    assert run.newest_checkpoint() == max(run.steps())
    assert run.members() == []
    row.lost_steps = 0


# ---- raced and mistaken ----------------------------------------------------------------------------------------------


@pytest.mark.fault("Ten supervisors for one run")
def test_ten_supervisors_race_for_one_run(nursery: Nursery, golden: Child, row: Any) -> None:
    """One wins and trains; nine leave with status 2, each naming the winner; every number is the straight run's."""
    run = nursery.create(steps=10_000)
    racers = []
    for _ in range(10):
        run.start(wait=False)
        racers.append(run.process)
    Child.wait_for(lambda: sum(racer.exitcode is not None for racer in racers) >= 9, "nine have left")
    losers = [racer for racer in racers if racer.exitcode == 2]
    assert len(losers) == 9
    (run.process,) = [racer for racer in racers if racer not in losers]
    assert run.log().count(f"is already held by supervisor {run.process.pid}") == 9
    run.until_step(10)
    assert run.command("stop").ok
    assert run.end() == 0
    assert run.steps() == list(range(1, run.newest_checkpoint() + 1))
    told, expected = run.trace(), golden.trace()
    assert all(told[step] == expected[step] for step in told.keys() & expected.keys())
    row.trials = 10


@pytest.mark.fault("Pid reuse")
@pytest.mark.parametrize("token", ["another boot:1", pytest.param("", marks=pytest.mark.full_only)])
def test_an_innocent_process_with_the_pid_of_a_dead_one_is_left_alone(nursery: Nursery, row: Any, token: str) -> None:
    """status.json names as worker and supervisor a process of somebody else: the run shows `interrupted`, a resume does
    not wait for it, and it lives on."""
    run = nursery.create(steps=3)
    innocent = subprocess.Popen(["sleep", "1000"])
    try:
        status = Status(
            state="running", supervisor_pid=innocent.pid, worker_pid=innocent.pid, start_token=token, total_steps=3
        )
        run.folder.write_status(status)
        assert run.status()["state"] == "interrupted"
        begun = time.monotonic()
        run.start()
        assert time.monotonic() - begun < 30, "it waited for the innocent process"
        assert run.end() == 0
        assert innocent.poll() is None
    finally:
        innocent.kill()
        innocent.wait()


@pytest.mark.full_only
@pytest.mark.fault("Pid reuse")
def test_a_worker_that_truly_lives_is_waited_for(nursery: Nursery, row: Any) -> None:
    """The same status.json, but with the token of the living process: the resume waits until it has ended."""
    run = nursery.create(steps=3)
    orphan = subprocess.Popen(["sleep", "1000"])
    run.folder.write_status(
        Status(state="running", worker_pid=orphan.pid, start_token=process_token(orphan.pid), total_steps=3)
    )
    run.start(wait=False)
    with pytest.raises(AssertionError):
        Child.wait_for(lambda: run.folder.socket.exists(), patience_s=1.5)
    orphan.kill()
    orphan.wait()
    assert run.end() == 0


# ---- commands at bad moments -----------------------------------------------------------------------------------------

Answer = Ack | ConnectionError


def ask(run: Child, name: str, **args: Any) -> Answer:
    try:
        return run.command(name, **args)
    except ConnectionError as refusal:
        return refusal


def ask_all(run: Child, *commands: str) -> list[Answer]:
    """Send the commands at once, each on a line of its own; their answers, all within a minute."""

    def one(command: str) -> Answer:
        name, _, value = command.partition(" ")
        return ask(run, name, **({"key": "learning_rate", "value": value} if value else {}))

    with ThreadPoolExecutor(len(commands)) as lines:
        return list(lines.map(one, commands, timeout=60))


EVERYTHING = ("set 5e-5", "checkpoint", "pause", "resume", "set nonsense", "free-vram")


@pytest.mark.full_only
@pytest.mark.fault("Commands at bad moments")
def test_commands_while_loading_are_answered_at_the_first_step(nursery: Nursery, row: Any, tmp_path: Path) -> None:
    """During caching: each is answered, what cannot be is refused with a reason, and the run goes on."""
    run = nursery.start(steps=12, inject=partial(empty_cache, str(tmp_path / "cache")))
    answers = ask_all(run, *EVERYTHING)
    row.trials = len(answers)
    by_name = dict(zip(EVERYTHING, answers, strict=True))
    assert all(isinstance(answer, Ack) and answer.message for answer in answers), answers
    assert by_name["set 5e-5"].ok
    assert by_name["checkpoint"].ok
    assert not by_name["set nonsense"].ok
    assert not by_name["free-vram"].ok
    if run.status()["state"] == "paused":  # resume may have come before pause
        assert run.command("resume").ok
    assert run.end() == 0


@pytest.mark.fault("Commands at bad moments")
def test_stop_while_loading(nursery: Nursery, row: Any, tmp_path: Path) -> None:
    """Two stops during caching: both are answered, one acknowledged; the run is `stopped` and can be resumed."""
    run = nursery.start(steps=5, inject=partial(empty_cache, str(tmp_path / "cache")))
    run.until(lambda body: body["type"] == "progress" and body["phase"] in ("loading", "caching"))
    answers = ask_all(run, "stop", "stop")
    assert any(isinstance(answer, Ack) and answer.ok for answer in answers), answers
    assert run.end() == 0
    assert run.status()["state"] == "stopped"
    run.start()
    assert run.end() == 0


@pytest.mark.fault("Commands at bad moments")
def test_commands_during_a_save_and_while_paused(nursery: Nursery, golden: Child, row: Any) -> None:
    """During a save of one second, then while paused: each is answered; the trace is the straight run's but for what
    was set."""
    run = nursery.start(steps=30, inject=partial(slow_saves, 1.0), checkpoint={"every": 10})
    run.until(lambda body: body["type"] == "progress" and body["phase"] == "saving")
    answers = ask_all(run, "checkpoint", "pause", "set 1e-4", "pause")
    assert all(isinstance(answer, Ack) and answer.ok for answer in answers), answers
    Child.wait_for(lambda: run.status()["state"] == "paused", "paused")
    more = ask_all(run, "pause", "checkpoint", "set 1e-4", "free-vram", "reload")
    assert all(isinstance(answer, Ack) for answer in more), more
    row.trials = len(answers) + len(more)
    assert run.command("resume").ok
    assert run.end() == 0
    assert_repeats(run, golden, 30)


@pytest.mark.full_only
@pytest.mark.fault("Commands at bad moments")
def test_two_stops_during_a_save(nursery: Nursery, golden: Child, row: Any) -> None:
    """Both are answered, one acknowledged after the save; `stopped`, and the resumed run repeats the straight one."""
    run = nursery.start(steps=30, inject=partial(slow_saves, 1.0), checkpoint={"every": 10})
    run.until(lambda body: body["type"] == "progress" and body["phase"] == "saving")
    answers = ask_all(run, "stop", "stop", "pause")
    row.trials = len(answers)
    assert sum(isinstance(answer, Ack) and answer.ok and answer.command == "stop" for answer in answers) == 1
    assert run.end() == 0
    assert run.status()["state"] == "stopped"
    run.start()
    assert run.end() == 0
    assert_repeats(run, golden, 30)


@pytest.mark.full_only
@pytest.mark.fault("Commands at bad moments")
def test_a_stop_during_the_restart_back_off(nursery: Nursery, row: Any) -> None:
    """The run has died and waits to be started again: a stop is answered at once, and it is not started again."""
    run = nursery.start(steps=20, restarts=3, inject=partial(both, wait_in_back_off, partial(raise_always_at, 6)))
    run.until(lambda body: body["type"] == "warning" and "starting again" in body["message"])
    answer = ask(run, "stop")
    assert not isinstance(answer, Ack) or answer.ok
    run.end()
    assert run.of("plan")[1:] == []
    assert run.members() == []


@pytest.mark.full_only
@pytest.mark.fault("Commands at bad moments")
def test_sigterm_during_the_restart_back_off(nursery: Nursery, row: Any) -> None:
    """The run has died and waits to be started again: SIGTERM ends the supervisor at once, without another attempt."""
    run = nursery.start(steps=20, restarts=3, inject=partial(both, wait_in_back_off, partial(raise_always_at, 6)))
    run.until(lambda body: body["type"] == "warning" and "starting again" in body["message"])
    run.kill_supervisor(signal.SIGTERM)
    run.end()
    assert len(run.of("plan")) == 1
    assert run.members() == []
    assert run.status()["state"] in ("failed", "stopped")


@pytest.mark.full_only
def test_the_socket_folder_of_a_killed_supervisor_is_removed_by_the_next(nursery: Nursery) -> None:
    """/tmp does not fill up with the sockets of runs that died."""
    run = nursery.start(steps=3000)
    former = Path(run.folder.socket.read_text().strip()).parent
    run.until_step(2)
    worker = run.worker_pid()
    run.kill_supervisor()
    os.kill(worker, signal.SIGKILL)
    run.process.join()
    assert former.exists()
    run.start(steps=4)
    assert run.end() == 0
    assert not former.exists()
    assert not run.folder.socket.exists()

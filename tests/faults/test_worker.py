"""The worker dies, hangs, or runs out of memory: the supervisor says how, and the run goes on from its checkpoint."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from injections import (
    at_every_step,
    at_step,
    both,
    die_by,
    die_while_caching,
    eat_memory,
    empty_cache,
    poison_the_dice,
    raise_error,
    run_out_of_address_space,
    short_back_off,
)
from nursery import GOLDEN_STEPS, Child, Nursery, assert_golden, assert_repeats

EVERY = 3


# ---- kill -9 at random -----------------------------------------------------------------------------------------------


@pytest.mark.fault("kill -9 of the worker at a random moment")
@pytest.mark.timeout(900)
def test_killed_at_random_moments(
    nursery: Nursery, golden: Child, trials: Callable[[int, int], int], row: Any, tmp_path: Path
) -> None:
    """After each kill: `interrupted`, the reason names SIGKILL, the newest checkpoint verifies and is no older than the
    last announced, no process is left. After each resume: no temporary file is left, at most `checkpoint.every` steps
    are done again, every number is the straight run's, and no sequence number is given twice."""
    dice = random.Random(11)
    wanted, killed, lost, number = trials(6, 200), 0, 0, 0
    in_phase = dict.fromkeys(("loading", "caching", "saving", "training"), 0)
    while killed < wanted:
        run = nursery.create(steps=GOLDEN_STEPS, checkpoint={"every": EVERY, "keep": 2})
        announced = trained = 0
        while killed < wanted:
            number += 1
            phase = ("training", "loading", "saving", "caching")[number % 4]
            inject: Callable[[], None] = poison_the_dice
            if phase == "caching":
                inject = partial(empty_cache, str(tmp_path / f"cache-{number}"))
            run.start(inject=inject)
            if not kill_in(run, phase, trained, dice):
                break
            run.end()
            killed += 1
            in_phase[phase] += 1
            # The steps of an attempt that died before its plan are none; those of one that was planned follow it.
            if run.of("plan"):
                assert run.start_step() >= trained - EVERY
                lost = max(lost, trained - run.start_step())
            trained = max([run.start_step() if run.of("plan") else trained, *run.steps()])
            announced = max([announced, *(body["step"] for body in run.of("checkpoint"))])
            status = run.status()
            assert status["state"] == "interrupted"
            assert "SIGKILL" in status["error"]
            assert status["worker_pid"] is None
            assert run.members() == []
            assert run.newest_checkpoint() >= announced
        run.start(inject=poison_the_dice) if run.process.exitcode is not None else None
        if run.read_on(lambda body: body["type"] == "plan") is not None:
            assert run.temporaries() == []
        assert run.end() == 0, run.log()
        assert_golden(run, golden, GOLDEN_STEPS)
        assert len(set(run.seqs())) == len(run.seqs())
        assert run.temporaries() == []
        run.abandon()
    assert all(in_phase.values())
    row.trials, row.lost_steps = killed, lost
    assert lost <= EVERY


def kill_in(run: Child, phase: str, trained: int, dice: random.Random) -> bool:
    """Kill the worker in that phase; False where the run came to its end first."""
    pid = run.worker_pid()
    if phase in ("loading", "caching"):
        found = run.read_on(lambda body: body["type"] == "progress" and body["phase"] == phase)
        time.sleep(dice.random() * 0.4)  # where in the phase it dies
    elif phase == "saving":
        found = run.read_on(lambda body: body["type"] == "progress" and body["phase"] == "saving")
        time.sleep(dice.random() * 0.02)
    else:
        wanted = trained + dice.randrange(1, 9)
        found = run.read_on(lambda body: body["type"] == "step" and body["step"] >= wanted)
        time.sleep(dice.random() * 0.03)
    if found is None or run.recorded()["worker_pid"] != pid:
        return False
    os.kill(pid, signal.SIGKILL)
    return run.read_on(lambda body: body["type"] in ("finished", "failed"))["type"] == "failed"


def test_caching_that_was_killed_goes_on_where_it_was(nursery: Nursery, tmp_path: Path) -> None:
    """Killed after 6 of 16 pictures, the resumed run encodes the other ten and leaves what it finds as it is."""
    cache = tmp_path / "cache"
    run = nursery.start(steps=2, inject=partial(die_while_caching, str(cache), 6))
    assert run.end() == 1
    kept = {file: file.stat().st_mtime_ns for file in cache.rglob("*.safetensors")}
    assert sum("latents" in file.parts for file in kept) == 6
    run.start(inject=partial(empty_cache, str(cache)))
    assert run.end() == 0, run.log()
    assert any(body["phase"] == "caching" and body["done"] == body["total"] > 16 for body in run.of("progress"))
    assert sum("latents" in file.parts for file in cache.rglob("*.safetensors")) == 16
    assert {file: file.stat().st_mtime_ns for file in kept} == kept


# ---- other deaths ----------------------------------------------------------------------------------------------------


@pytest.mark.fault("Segmentation fault, bus error or abort of the worker")
@pytest.mark.parametrize(
    "number",
    [
        signal.SIGSEGV,
        pytest.param(signal.SIGBUS, marks=pytest.mark.full_only),
        pytest.param(signal.SIGABRT, marks=pytest.mark.full_only),
    ],
)
def test_a_crash_is_named_and_the_run_goes_on(
    nursery: Nursery, golden: Child, row: Any, number: signal.Signals
) -> None:
    """The state is `interrupted`, the reason names the signal, the log holds the Python stack; the resumed run repeats
    the straight one."""
    run = nursery.start(steps=20, inject=partial(at_step, 12, partial(die_by, number)))
    assert run.end() == 1
    assert run.status()["state"] == "interrupted"
    assert number.name in run.status()["error"]
    assert "Fatal Python error" in run.log()
    assert "training/session.py" in run.log()
    assert_resumes(run, golden, row, died_after=12)


@pytest.mark.fault("A worker that hangs")
def test_a_worker_that_hangs_is_killed_and_started_again(nursery: Nursery, golden: Child, row: Any) -> None:
    """Stopped in mid-run under `hang_timeout: 2` and `restarts: 1`: it is killed, that is told, and the run goes on by
    itself to the straight run's end."""
    run = nursery.start(steps=30, hang_timeout=2, restarts=1, inject=short_back_off)
    run.until_step(8)
    stopped = run.kill_worker(signal.SIGSTOP)
    assert "starting again" in run.until_type("warning")["message"]
    trained = max(run.steps())
    row.lost_steps = trained - run.until_type("plan")["start_step"]
    assert run.end() == 0
    assert stopped not in run.members()
    assert row.lost_steps <= 5
    assert_golden(run, golden, 30)


@pytest.mark.full_only
@pytest.mark.fault("A worker that hangs")
def test_that_it_hung_is_told(nursery: Nursery, row: Any) -> None:
    """Without `restarts` the state is `interrupted`, and the reason speaks of the hang."""
    run = nursery.start(steps=40, hang_timeout=2)
    run.until_step(8)
    run.kill_worker(signal.SIGSTOP)
    assert run.end() == 1
    assert run.members() == []
    assert run.status()["state"] == "interrupted"
    assert "no sign of life" in run.status()["error"]


def assert_resumes(run: Child, golden: Child, row: Any, died_after: int) -> None:
    """The resumed run of 20 steps repeats the straight one, and at most 5 steps were lost."""
    run.start(inject=poison_the_dice)
    assert run.end() == 0
    row.lost_steps = died_after - run.start_step()
    assert row.lost_steps <= 5
    assert_repeats(run, golden, 20)


# ---- out of memory ---------------------------------------------------------------------------------------------------


@pytest.fixture
def small_memory() -> Iterator[Callable[[int], None]]:
    """Moves a process into a memory cgroup of 300 MB."""
    group = Path("/sys/fs/cgroup/memory") / f"acrf-faults-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(300_000_000))
    except OSError as error:
        pytest.skip(f"no memory cgroup can be made here ({error.strerror})")
    yield lambda pid: (group / "cgroup.procs").write_text(str(pid)) and None
    Child.wait_for(lambda: not (group / "cgroup.procs").read_text(), "the cgroup is empty")
    group.rmdir()


@pytest.mark.fault("The kernel kills the worker for lack of memory")
def test_killed_by_the_kernel_for_lack_of_memory(
    nursery: Nursery, golden: Child, row: Any, small_memory: Callable[[int], None], tmp_path: Path
) -> None:
    """The worker eats more than its cgroup has: the run says that it was out of memory, and goes on when resumed."""
    mark = tmp_path / "eat"
    inject = partial(at_every_step, partial(eat_memory, str(mark)))
    run = nursery.start(steps=GOLDEN_STEPS, inject=inject)
    run.until_step(3)
    small_memory(run.worker_pid())
    mark.touch()
    code = run.end()
    if run.last()["type"] == "finished":
        pytest.skip("the kernel here does not enforce the limit of a memory cgroup")
    assert code == 1
    assert run.status()["state"] == "interrupted"
    assert "out of memory" in run.status()["error"]
    trained = max(run.steps())
    run.start(inject=poison_the_dice, steps=40)
    row.lost_steps = trained - run.until_type("plan")["start_step"]
    assert run.end() == 0
    assert row.lost_steps <= 5
    assert_repeats(run, golden, 40)


@pytest.mark.full_only
@pytest.mark.fault("An allocation that fails (RLIMIT_AS)")
def test_an_allocation_that_fails_ends_the_run_with_a_word(nursery: Nursery, golden: Child, row: Any) -> None:
    """The run fails, the reason speaks of memory, the traceback is in the journal; the resumed run repeats the straight
    one."""
    run = nursery.start(steps=20, inject=partial(at_step, 12, run_out_of_address_space))
    assert run.end() == 1
    assert run.status()["state"] == "failed"
    assert "memory" in run.status()["error"]
    assert "train_step" in run.of("error")[0]["traceback"]
    assert_resumes(run, golden, row, died_after=12)


# ---- crash loops -----------------------------------------------------------------------------------------------------


@pytest.mark.fault("A crash loop")
@pytest.mark.parametrize(
    "how",
    [
        partial(raise_error, RuntimeError("the same again")),
        pytest.param(partial(die_by, signal.SIGSEGV), marks=pytest.mark.full_only),
    ],
    ids=["exception", "segfault"],
)
def test_a_run_that_dies_at_the_same_step_again_is_given_up(
    nursery: Nursery, row: Any, tmp_path: Path, how: Callable[[Any], None]
) -> None:
    """`restarts: 5`, but it dies at the same step twice: no third try, and the last reason (and traceback) is told."""
    mark = tmp_path / "deaths"
    run = nursery.start(
        steps=20, restarts=5, inject=partial(both, short_back_off, partial(at_step, 8, how, mark=str(mark)))
    )
    assert run.end() == 1
    deaths = mark.read_text().split()
    row.trials = len(deaths)
    assert deaths == ["8", "8"]
    if how.func is raise_error:
        assert run.status()["state"] == "failed"
        assert "the same again" in run.status()["error"]
        assert "the same again" in run.of("error")[-1]["traceback"]
    else:
        assert run.status()["state"] == "interrupted"
        assert "SIGSEGV" in run.status()["error"]
    assert run.members() == []


@pytest.mark.full_only
@pytest.mark.fault("A crash loop")
def test_restarts_are_bounded_also_where_each_gets_a_little_further(nursery: Nursery, row: Any, tmp_path: Path) -> None:
    """`restarts: 3`, and every attempt dies one step later: three restarts, each told, then it is given up."""
    mark = tmp_path / "deaths"
    run = nursery.start(
        steps=20,
        restarts=3,
        checkpoint={"every": 1},
        inject=partial(both, short_back_off, partial(die_later, str(mark))),
    )
    assert run.end() == 1
    row.trials = len(mark.read_text().split())
    assert row.trials == 4
    assert [body["message"].count("starting again") for body in run.of("warning")] == [1, 1, 1]
    assert run.status()["state"] == "interrupted"


def die_later(mark: str) -> None:
    """Two steps after the attempt's first."""
    from acrf_engine.training.trainer import Trainer

    train_step = Trainer.train_step
    taken = 0

    def acting(self: Trainer) -> Any:
        nonlocal taken
        taken += 1
        if taken == 3:
            with open(mark, "a", encoding="utf-8") as file:
                file.write(f"{self.step}\n")
            os.kill(os.getpid(), signal.SIGKILL)
        return train_step(self)

    Trainer.train_step = acting

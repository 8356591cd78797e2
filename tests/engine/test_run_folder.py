"""A run seen from outside: names, lock, status, and finding yesterday's run."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from acrf_engine.run.deaths import boot_id, describe_exit, wait_for_orphan
from acrf_engine.run.folder import RunError, RunFolder, Status, create_run, find_run, fresh_name, list_runs
from acrf_engine.run.link import Connection


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return create_run(tmp_path / "runs", "night", "seed: 1\n")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_run_belongs_to_its_user_alone(folder: RunFolder) -> None:
    assert mode(folder.path) == 0o700
    assert mode(folder.config) == 0o600
    assert mode(folder.status) == 0o600


def test_a_name_that_is_taken_is_refused_and_the_run_untouched(folder: RunFolder) -> None:
    with pytest.raises(RunError, match="exists"):
        create_run(folder.path.parent, "night", "seed: 2\n")
    assert folder.config.read_text() == "seed: 1\n"


@pytest.mark.parametrize("name", ["", ".hidden", "..", "a/b", "/abs", "a b", "x" * 101, "-x\n", "a\0b"])
def test_a_name_that_could_not_be_a_folder_here_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(RunError, match="run name"):
        create_run(tmp_path, name, "")


@pytest.mark.parametrize("name", ["a", "Nacht-1", "möbel_2", "v1.2+x"])
def test_ordinary_names_are_fine(tmp_path: Path, name: str) -> None:
    assert create_run(tmp_path, name, "").path.is_dir()


def test_fresh_names_never_meet(tmp_path: Path) -> None:
    for _ in range(4):
        create_run(tmp_path, fresh_name(tmp_path, "my config: 2"), "")
    assert len(list(tmp_path.iterdir())) == 4


def test_status_is_replaced_whole(folder: RunFolder) -> None:
    """A reader in the middle of a thousand writes never sees half a file."""
    status = folder.read_status()
    done = threading.Event()

    def write() -> None:
        for step in range(1000):
            status.step = step
            status.error = "x" * (step % 50) * 100
            folder.write_status(status)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    reads = 0
    while not done.is_set():
        assert folder.recorded_status().state == "starting"
        reads += 1
    writer.join()
    assert reads > 0


def test_an_active_state_without_a_living_supervisor_is_interrupted(folder: RunFolder) -> None:
    status = folder.recorded_status()
    status.state, status.supervisor_pid, status.step = "running", 1, 7
    folder.write_status(status)
    seen = folder.read_status()
    assert (seen.state, seen.step) == ("interrupted", 7)
    assert seen.error
    with folder.hold():
        assert folder.read_status().state == "running"


@pytest.mark.parametrize(
    ("token", "why"),
    [("another-boot:123", "the machine was restarted"), (f"{boot_id()}:123", "killed"), ("", "killed")],
)
def test_a_run_that_a_reboot_ended_says_so(folder: RunFolder, token: str, why: str) -> None:
    folder.write_status(Status(state="running", supervisor_pid=os.getpid(), start_token=token))
    status = folder.read_status()
    assert status.state == "interrupted"
    assert why in (status.error or "")


def test_only_one_can_hold_a_run_and_the_other_is_told_who(folder: RunFolder) -> None:
    with folder.hold():
        assert folder.is_held()
        with pytest.raises(RunError, match=f"held by supervisor {os.getpid()}"), folder.hold(patience_s=0.0):
            pass
    assert not folder.is_held()


def test_two_readers_at_once_do_not_take_each_other_for_a_supervisor(folder: RunFolder) -> None:
    """A reader tests the lock; another that tests it at that moment must still say that nobody holds the run."""
    with folder.hold():
        pass
    wrong: list[bool] = []

    def look() -> None:
        wrong.extend(filter(None, (folder.is_held() for _ in range(3000))))

    readers = [threading.Thread(target=look) for _ in range(4)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert wrong == []


def test_the_lock_goes_with_its_process(folder: RunFolder) -> None:
    code = (
        "import sys, time; from acrf_engine.run.folder import RunFolder\n"
        f"with RunFolder({str(folder.path)!r}).hold():\n print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        assert folder.is_held()
    finally:
        process.kill()
        process.wait()
    assert not folder.is_held()


def test_a_folder_that_is_no_run_and_a_broken_status_say_so(tmp_path: Path, folder: RunFolder) -> None:
    with pytest.raises(RunError, match="not a run folder"):
        RunFolder(tmp_path).read_status()
    folder.status.write_text('{"state": "run')
    with pytest.raises(RunError, match=r"status\.json: cannot be read"):
        folder.read_status()


def test_a_status_of_a_newer_version_is_read(folder: RunFolder) -> None:
    folder.status.write_text(json.dumps({"state": "stopped", "step": 3, "mood": "good"}))
    assert folder.read_status().step == 3


# ---- finding ---------------------------------------------------------------------------------------------------------


def test_runs_are_listed_newest_first_without_hidden_and_foreign_folders(tmp_path: Path) -> None:
    for name in ("one", "two"):
        create_run(tmp_path, name, "")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "other").mkdir()
    assert [run.name for run in list_runs(tmp_path) if run.path.parent == tmp_path] == ["two", "one"]


def test_yesterdays_run_is_found_from_any_folder(folder: RunFolder, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    other = create_run(tmp_path / "somewhere", "only-there-7", "")
    assert find_run("only-there-7", elsewhere).path == other.path
    assert find_run(str(folder.path), elsewhere).path == folder.path


def test_a_folder_of_runs_that_was_asked_for_is_the_only_one_looked_at(folder: RunFolder, tmp_path: Path) -> None:
    """`--runs DIR`: a newer run elsewhere is neither listed nor the one that is attached to without a name."""
    create_run(tmp_path / "somewhere", "newer", "")
    here = folder.path.parent
    assert [run.path for run in list_runs(here, elsewhere=False)] == [folder.path]
    assert find_run(None, here, elsewhere=False).path == folder.path
    with pytest.raises(RunError, match="no run yet"):
        find_run(None, tmp_path / "empty", elsewhere=False)


def test_a_run_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no run 'ghost'"):
        find_run("ghost", tmp_path)


# ---- processes -------------------------------------------------------------------------------------------------------


@pytest.fixture
def stranger() -> Iterator[int]:
    """Another program's multiprocessing child, which was given the pid that a dead worker once had."""
    process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
    process.start()
    yield process.pid or 0
    process.kill()
    process.join()


def test_a_process_that_got_the_dead_workers_pid_is_neither_waited_for_nor_killed(stranger: int) -> None:
    status = Status(worker_pid=stranger, start_token="of-a-worker-before-the-reboot")
    wait_for_orphan(status)
    os.kill(stranger, 0)
    assert Path(f"/proc/{stranger}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def test_how_a_worker_died_is_told_in_words() -> None:
    assert "SIGKILL" in describe_exit(-signal.SIGKILL)
    assert "out of memory" in describe_exit(-signal.SIGKILL)
    assert "SIGSEGV" in describe_exit(-signal.SIGSEGV)
    assert "status 3" in describe_exit(3)


def test_an_answer_cut_short_is_a_lost_connection(tmp_path: Path) -> None:
    """A supervisor killed in the middle of an answer: the reader must go on to the run folder, not fall over."""
    path = str(tmp_path / "s")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()

    def serve() -> None:
        connection, _ = listener.accept()
        connection.recv(1000)
        connection.sendall(b'{"events": [{"type": "st')
        connection.close()

    server = threading.Thread(target=serve)
    server.start()
    connection = Connection(path)
    with pytest.raises(ConnectionError):
        connection.ask({"op": "pull"})
    connection.close()
    server.join()
    listener.close()

"""Apps, terminals and socket clients that die, stall or talk nonsense: the training does not notice."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from acrf_engine.run.folder import RunFolder, write_private
from acrf_engine.run.server import MAX_CLIENTS
from acrf_engine.run.telemetry import TelemetryReader
from tests.faults.conftest import Row
from tests.faults.live import (
    APP,
    Line,
    LiveRun,
    closing,
    descriptors_and_threads,
    eventually,
    gaps,
    left_on,
    median_gap,
    no_more,
    resident_mb,
    settled,
    shown_step,
    takes_lines,
)

Trials = Callable[[int, int], int]
NOTICEABLE = 3.0
"""A reader that holds the loop up stops it altogether; other tests on the machine make less of a difference."""


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveRun]:
    run = LiveRun(tmp_path_factory.mktemp("runs"), "live")
    yield run
    run.end()


def draws_the_present(live: LiveRun) -> None:
    """A new app attaches, and shows the run going on."""
    with closing(live.attach()) as app:
        app.until("RUNNING", "step")
        before = shown_step(app)
        _until_later(app, before)


def _until_later(app: Line, step: int) -> None:
    eventually(lambda: app._read() and shown_step(app) > step, f"the app shows no step after {step}\n{app.text}")


# ---- the app goes ----------------------------------------------------------------------------------------------------


WAYS_TO_GO = ("SIGHUP", "SIGTERM", "SIGINT", "SIGKILL", "closed line")


@pytest.mark.fault("app: hang-up, SIGTERM, SIGINT, kill -9")
def test_an_app_that_goes_costs_nothing(live: LiveRun, row: Row, trials: Trials) -> None:
    """The app leaves within seconds and, where it can, a clean terminal; steps keep coming; the next app draws them."""
    ways = WAYS_TO_GO * trials(1, 6)
    row.trials, row.lost_steps = len(ways), 0
    for how in ways:
        with closing(live.attach()) as app:
            app.until("RUNNING", "step")
            if how == "closed line":
                app.hang_up()
                eventually(lambda app=app: app.status() is not None, "the app outlives its terminal", 20)
            else:
                app.signal(signal.Signals[how])
                app.wait()
                left = (left_on(bytes(app.raw)), takes_lines(app))
                assert how == "SIGKILL" or left == ([], True), how
        live.trains_on()
    draws_the_present(live)
    live.answers()


HANGS = """
import asyncio, sys, termios, time, tty
from acrf_tui import terminal
terminal.LEAVING_S = 0.5
modes = terminal.terminal_modes()
tty.setraw(0)
async def main():
    terminal.leave_on_signals(lambda status: None, modes)
    sys.stdout.write("\x1b[?1049h\x1b[?1003h\x1b[?25lhanging")
    sys.stdout.flush()
    time.sleep(600)
asyncio.run(main())
"""


@pytest.mark.fault("app: hang-up, SIGTERM, SIGINT, kill -9")
@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_an_app_that_hangs_is_ended_with_the_terminal_put_back(row: Row, how: str) -> None:
    """Its event loop is blocked for good: the signal ends it all the same, and the terminal is as before."""
    with closing(Line([sys.executable, "-c", HANGS])) as app:
        app.until("hanging")
        number = signal.Signals[how]
        app.signal(number)
        assert app.wait() == 128 + number
        assert left_on(bytes(app.raw)) == []
        assert takes_lines(app)


@pytest.mark.full_only
@pytest.mark.fault("app: stopped (SIGSTOP), for a minute")
def test_a_stopped_app_holds_nothing_up(live: LiveRun, row: Row, trials: Trials, record_property: Any) -> None:
    """The median time between steps stays below 3 x that with a live app; continued, the app shows the present."""
    few, many = trials(20, 60), trials(20, 450)
    with closing(live.attach()) as app:
        app.until("RUNNING", "step")
        before = live.next_steps(few)
        app.signal(signal.SIGSTOP)
        during = live.next_steps(many)
        live.answers()
        now = live.status().step
        app.signal(signal.SIGCONT)
        _until_later(app, now)
    _no_slower(before, during, record_property)
    row.lost_steps = 0


@pytest.mark.fault("app: a terminal that never reads")
def test_a_terminal_that_never_reads_holds_nothing_up(
    live: LiveRun, row: Row, trials: Trials, record_property: Any
) -> None:
    """The median time between steps stays below 3 x that without an app; read at last, the app shows the present."""
    few, many = trials(20, 60), trials(20, 150)
    before = live.next_steps(few)
    idle = settled(live.supervisor)[0]
    with closing(live.attach()) as app:
        eventually(lambda: descriptors_and_threads(live.supervisor)[0] > idle, "the app does not attach")
        during = live.next_steps(many)
        live.answers()
        now = live.status().step
        _until_later(app, now)
    _no_slower(before, during, record_property)
    row.lost_steps = 0


def _no_slower(before: list[dict[str, Any]], during: list[dict[str, Any]], record_property: Any) -> None:
    numbers = [body["step"] for body in during]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    record_property("longest gap between steps before, s", round(max(gaps(before)), 3))
    record_property("longest gap between steps during, s", round(max(gaps(during)), 3))
    ratio = median_gap(during) / median_gap(before)
    record_property("median gap, during / before", round(ratio, 3))
    assert ratio < NOTICEABLE


@pytest.mark.full_only
@pytest.mark.fault("app: many, attached and killed")
def test_many_apps_leave_no_thread_and_no_descriptor(live: LiveRun, row: Row, trials: Trials) -> None:
    """After all of them, supervisor and worker have the threads and descriptors of before; steps keep coming."""
    row.trials = trials(4, 100)
    before = {pid: settled(pid) for pid in (live.supervisor, live.worker)}

    def attach_and_kill(_: int) -> None:
        with closing(live.attach()) as app:
            app.until("RUNNING", "step")
            app.signal(signal.SIGKILL)
            app.wait()

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(attach_and_kill, range(row.trials)))
    for pid, count in before.items():
        eventually(lambda pid=pid, count=count: no_more(pid, count), f"(descriptors, threads) were {count}")
    live.trains_on()
    live.answers()


@pytest.mark.fault("app: one that only observes")
def test_an_observer_sends_nothing(live: LiveRun, row: Row) -> None:
    """No key of an app with --observe becomes a command, and its leaving leaves the run alone."""
    acknowledged = _acks(live.folder)
    with closing(live.attach("--observe")) as app:
        app.until("RUNNING", "step")
        for key in (" ", "c", "s", "v"):
            app.type(key)
        step = live.status().step
        _until_later(app, step + 2)
        assert "PAUSED" not in app.text
        app.signal(signal.SIGTERM)
        app.wait()
    live.trains_on()
    assert _acks(live.folder) == acknowledged


def _acks(folder: RunFolder) -> int:
    return sum(event.type == "ack" for event in TelemetryReader(folder.telemetry).history().events)


# ---- another version -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def newer_supervisor(live: LiveRun, folder: RunFolder) -> Iterator[None]:
    """Stand in for the live run's supervisor as one of version 9.9: it greets so and says things unheard of."""
    folder.path.mkdir(mode=0o700)
    source, copy = (sqlite3.connect(path) for path in (live.folder.telemetry, folder.telemetry))
    source.backup(copy)
    source.close()
    copy.close()
    folder.write_status(live.status())
    folder.config.write_bytes(live.folder.config.read_bytes())
    place = tempfile.mkdtemp(prefix="acrf-")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(f"{place}/s")
    listener.listen(8)
    write_private(folder.socket, f"{place}/s\n")

    def serve(client: socket.socket) -> None:
        with (
            contextlib.suppress(OSError),
            client,
            client.makefile("rwb") as theirs,
            live.connect() as line,
            line.makefile("rwb") as ours,
        ):
            while request := theirs.readline():
                ours.write(request)
                ours.flush()
                answer = json.loads(ours.readline())
                if "protocol" in answer:
                    answer |= {"protocol": 99, "version": "9.9"}
                for body in answer.get("events", []):
                    body["field_of_tomorrow"] = [1]
                    if body["type"] == "hardware":
                        body["type"] = "hologram"
                theirs.write(json.dumps(answer).encode() + b"\n")
                theirs.flush()

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=serve, args=(client,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    with folder.hold():
        yield
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


@pytest.mark.fault("app: an old one on a newer run, a new one on an older run")
def test_an_app_of_another_version_watches_and_is_told_why_it_cannot_steer(
    live: LiveRun, row: Row, tmp_path: Path
) -> None:
    """It draws the steps past events that it does not know; its command is refused, naming both versions; status 1."""
    row.trials = 2
    folder = RunFolder(tmp_path / "tomorrow")
    with newer_supervisor(live, folder):
        done = subprocess.run(
            [*APP, "control", str(folder.path), "pause"], capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 1
        assert "supervised by acrf-tui 9.9" in done.stderr
        assert "watched, but not steered" in done.stderr
        with closing(Line([*APP, "attach", str(folder.path)])) as app:
            app.until("RUNNING", "step")
            _until_later(app, live.status().step)
            app.type(" ")
            app.until("9.9")
            _until_later(app, live.status().step)
    newer = (
        "import sys, acrf_engine.run.client as client; client.PROTOCOL_VERSION = 99; "
        "from acrf_tui.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", newer]
    done = subprocess.run(
        [*command, "control", str(live.folder.path), "pause"], capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, "not steered" in done.stderr) == (1, True)
    with closing(Line([*command, "attach", str(live.folder.path)])) as app:
        app.until("RUNNING", "step")
        _until_later(app, live.status().step)
    live.trains_on()


# ---- nonsense on the socket ------------------------------------------------------------------------------------------

RUBBISH = [
    b"\n", b"hello\n", b"GET / HTTP/1.1\r\n\r\n", b"[]\n", b"7\n", b"null\n", b"{}\n", b"\xff\xfe\n",
    b"\0" * 99 + b"\n",
    b'{"op":"no such"}\n', b'{"op":{"a":1}}\n', b'{"op":"\\ud800"}\n', b'{"op":"pull","after":"x"}\n',
    b'{"op":"pull","max":-1}\n', b'{"op":"pull","after":1e400}\n',
    b'{"op":"pull","wait":"soon"}\n', b'{"op":"command"}\n', b'{"op":"command","name":"rm -rf"}\n',
    b'{"op":"command","name":"set","args":7}\n', b'{"op":"command","name":"set","args":{"key":["a"],"value":{}}}\n',
    b'{"op":"command","name":"set","args":{"key":"learning_rate","value":"1e999"}}\n',
    b'{"op":"command","name":"set","args":{"key":"learning_rate","value":null,"ramp":"x"}}\n',
    b'{"op":"command","name":"free-vram","args":{"\\ud800":{"deep":[[[[1]]]]}},"id":{}}\n',
    b'{"op":"command","name":"set","args":{"key":"' + b"k" * 60_000 + b'"}}\n',
    b"[" * 50_000 + b"\n", b"x" * 1_000_000 + b"\n",
]  # fmt: skip


@pytest.mark.fault("socket: garbage, huge lines, half-open connections")
def test_nonsense_on_the_socket_is_answered_or_dropped(live: LiveRun, row: Row, trials: Trials) -> None:
    """Each piece gets an error or a closed line; the run goes on, commands are answered, memory stays within 1.3 x."""
    rounds = trials(3, 60)
    row.trials = rounds * (len(RUBBISH) + 2)
    memory: list[float] = []
    before = settled(live.supervisor)
    for _ in range(rounds):
        for rubbish in RUBBISH:
            with live.connect() as line:
                answer = _say(line, rubbish)
                assert answer == b"" or b'"error"' in answer or b'"ok":false' in answer, (rubbish[:80], answer)
        for half in (b"", b'{"op":"pu'):
            with live.connect() as line:
                line.sendall(half)
                line.shutdown(socket.SHUT_WR)
                line.recv(4096)
        memory.append(resident_mb(live.supervisor))
    live.trains_on()
    live.answers()
    assert memory[-1] < 1.3 * memory[0]
    eventually(lambda: no_more(live.supervisor, before), f"(descriptors, threads) were {before}")


def _say(line: socket.socket, request: bytes) -> bytes:
    # A server that hangs up in the midst of a long request resets the line.
    with contextlib.suppress(ConnectionError):
        line.sendall(request)
        return line.recv(4096)
    return b""


@pytest.mark.fault("socket: clients that never read, more than 64 clients")
def test_clients_that_never_read_and_too_many_of_them(live: LiveRun, row: Row, record_property: Any) -> None:
    """Steps keep coming; one client more than allowed is turned away at once, and taken as soon as there is room."""
    row.trials = MAX_CLIENTS + 8
    before = settled(live.supervisor)
    memory = resident_mb(live.supervisor)
    steps = live.next_steps(15)
    with contextlib.ExitStack() as lines:
        held = [lines.enter_context(live.connect()) for _ in range(MAX_CLIENTS - 4)]
        for line in held:
            line.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while line.send(b'{"op":"pull","after":0,"max":4000}\n' * 50):
                    pass
        during = live.next_steps(15)
        live.answers()
        held += [lines.enter_context(live.connect()) for _ in range(12)]
        done = live.control("set", "snr_gamma=5")
        assert (done.returncode, "refused" in done.stderr) == (1, True)
        record_property("memory of the supervisor with silent clients, MB", round(resident_mb(live.supervisor), 1))
        live.process.poll()
        assert live.process.returncode is None, "the headless follower has lost the run"
    eventually(lambda: no_more(live.supervisor, before), f"(descriptors, threads) were {before}")
    record_property("and afterwards, MB", round(resident_mb(live.supervisor), 1))
    record_property("and before, MB", round(memory, 1))
    record_property("median gap between steps, during / before", round(median_gap(during) / median_gap(steps), 3))
    live.answers()
    live.trains_on()


@pytest.mark.fault("app: escape sequences in an event")
def test_escape_sequences_of_another_client_stay_text(live: LiveRun, row: Row) -> None:
    """What another client wrote into the journal reaches no terminal raw."""
    with closing(live.attach()) as app:
        app.until("RUNNING", "step")
        with live.connect() as line:
            key = {"key": "\x1b]0;pwned\x07\x1b[9999z[red]"}
            assert b'"ok":false' in _say(
                line, json.dumps({"op": "command", "name": "set", "args": key}).encode() + b"\n"
            )
        app.until("set refused")
        assert b"\x1b]0;pwned" not in app.raw
        assert b"\x1b[9999z" not in app.raw
        _until_later(app, live.status().step)


@pytest.mark.fault("socket: a wait that is no number")
def test_a_wait_that_is_no_number_does_not_spin(live: LiveRun, row: Row) -> None:
    """Over ten steps of the run the supervisor uses less than half a core."""
    supervisor = psutil.Process(live.supervisor)
    with live.connect() as line:
        line.sendall(
            b'{"op":"pull","after":'
            + str(TelemetryReader(live.folder.telemetry).last_seq() + 30).encode()
            + b',"wait":NaN}\n'
        )
        spent, began = sum(supervisor.cpu_times()[:2]), time.monotonic()
        live.next_steps(10)
        assert sum(supervisor.cpu_times()[:2]) - spent < 0.5 * (time.monotonic() - began)


@pytest.mark.fault("socket: a command with a number out of range")
def test_a_ramp_without_end_is_refused(live: LiveRun, row: Row) -> None:
    """The command is refused; steps keep coming. The last test of the live run, as long as it ends it."""
    with live.connect() as line:
        ramp = {"op": "command", "name": "set", "args": {"key": "learning_rate", "value": "1e-4", "ramp": 1e400}}
        assert b'"ok":false' in _say(line, json.dumps(ramp).encode() + b"\n")
    live.trains_on()

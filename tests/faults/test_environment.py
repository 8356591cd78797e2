"""The machine around a run: its clock, locale, paths, limits, terminals of any size, and other users."""

from __future__ import annotations

import json
import os
import random
import re
import resource
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from acrf_engine.config import ASSETS
from acrf_engine.run.folder import RunFolder
from acrf_engine.run.link import read_socket_path
from tests.faults.conftest import Row
from tests.faults.live import (
    APP,
    Line,
    LiveRun,
    as_nobody,
    cli,
    closing,
    eventually,
    left_on,
    median_gap,
    settled,
    shown_step,
)

Trials = Callable[[int, int], int]

pytestmark = pytest.mark.full_only

FEW_DESCRIPTORS = 64
SHIFTED_CLOCK = """
import os, time
_true, _file = time.time, os.environ["ACRF_TEST_CLOCK"]
def _shifted():
    try:
        with open(_file) as file:
            return _true() + float(file.read() or 0)
    except (OSError, ValueError):
        return _true()
time.time = _shifted
"""


class Shifted(LiveRun):
    """A live run whose processes take the time from a clock that can jump, with few descriptors to open."""

    def __init__(self, runs: Path, place: Path) -> None:
        place.mkdir()
        (place / "sitecustomize.py").write_text(SHIFTED_CLOCK, encoding="utf-8")
        self.clock = place / "clock"
        self.jump(0)
        paths = os.pathsep.join(filter(None, (str(place), os.environ.get("PYTHONPATH"))))
        self.environment = {"ACRF_TEST_CLOCK": str(self.clock), "PYTHONPATH": paths}
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (FEW_DESCRIPTORS, hard))
        try:
            super().__init__(runs, "live", environment={**os.environ, **self.environment})
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    def jump(self, seconds: float) -> None:
        beside = self.clock.with_suffix(".new")
        beside.write_text(str(seconds), encoding="utf-8")
        beside.replace(self.clock)


@pytest.fixture(scope="module")
def live() -> Iterator[Shifted]:
    """In a place that every user of the machine can enter, so that the run's own modes have to guard it."""
    place = Path(tempfile.mkdtemp(prefix="acrf-faults-"))
    place.chmod(0o755)
    run = Shifted(place / "runs", place / "clock")
    yield run
    run.end()
    shutil.rmtree(place, ignore_errors=True)


# ---- the clock -------------------------------------------------------------------------------------------------------


@pytest.mark.full_only
@pytest.mark.fault("clock: jumps of a day, forth and back")
def test_a_clock_that_jumps_changes_no_number_but_the_time(live: Shifted, row: Row, trials: Trials) -> None:
    """Steps and seq stay dense and rising, step time, ETA and elapsed sane in status.json and in an attached app."""
    before = live.next_steps(8)
    elapsed = live.status().elapsed_s
    jumps = (86_400.0, -86_400.0, 0.0) * trials(1, 10)
    row.trials, row.lost_steps = len(jumps), 0
    with closing(live.attach(**live.environment)) as app:
        app.until("RUNNING", "step")
        last = before[-1]
        for jump in jumps:
            live.jump(jump)
            steps = live.next_steps(6, after=last["seq"])
            numbers = [body["step"] for body in steps]
            assert numbers == list(range(numbers[0], numbers[0] + 6))
            assert [body["seq"] for body in steps] == sorted({body["seq"] for body in steps})
            assert steps[0]["seq"] > last["seq"]
            assert abs(steps[-1]["time"] - last["time"]) > 80_000, "the clock of the run did not jump"
            assert all(0 < body["step_time_s"] < 20 * median_gap(before) for body in steps)
            status = live.status()
            assert elapsed < status.elapsed_s < elapsed + 600
            assert status.eta_s is not None
            assert 0 < status.eta_s < 20 * median_gap(before) * status.total_steps
            elapsed, last = status.elapsed_s, steps[-1]
            shows_step(app, numbers[-1])
    rows = json.loads(cli("runs", "--json", "--runs", str(live.runs)).stdout)
    assert (rows[0]["state"], rows[0]["age_s"] >= 0) == ("running", True)


def shows_step(app: Line, step: int) -> None:
    eventually(lambda: app._read() and shown_step(app) >= step, f"the app does not come to step {step}\n{app.text}")


@pytest.mark.fault("clock: a day forth, in an attached app")
def test_the_app_shows_no_day_that_never_was(live: Shifted, row: Row) -> None:
    """The app's elapsed time stays that of the run."""
    with closing(live.attach(**live.environment)) as app:
        app.until("RUNNING", "step")
        try:
            live.jump(86_400)
            shows_step(app, live.next_steps(3)[-1]["step"])
            shown = re.search(r"elapsed +(\d+):(\d\d):(\d\d)", app.text)
            assert shown is not None
            assert int(shown[1]) == 0
        finally:
            live.jump(0)


# ---- terminals -------------------------------------------------------------------------------------------------------


@pytest.mark.fault("terminal: another size for a moment, while the app is stopped")
def test_an_app_redraws_what_the_terminal_lost_meanwhile(live: Shifted, row: Row, trials: Trials) -> None:
    """It finds the size that it knows, and the whole frame is there again."""
    row.trials = trials(1, 5)
    with closing(live.attach(columns=100, rows=30)) as app:
        app.until("RUNNING", "step")
        for _ in range(row.trials):
            app.signal(signal.SIGSTOP)
            app.drain()
            app.resize(1, 1)
            app.resize(100, 30)
            assert len(app.text.strip()) <= 1
            app.signal(signal.SIGCONT)
            _redraws(app, live)
        app.signal(signal.SIGTERM)
        app.wait()


@pytest.mark.fault("terminal: resized to 1x1, 200 resizes in a storm")
def test_an_app_redraws_whatever_size_the_terminal_had(live: Shifted, row: Row, trials: Trials) -> None:
    """After each the whole frame is there again, with head and foot, steps go on in it, and it leaves cleanly."""
    row.trials = 2 * trials(1, 5)
    sizes = random.Random(0)
    with closing(live.attach(columns=100, rows=30)) as app:
        app.until("RUNNING", "step")
        for _ in range(row.trials // 2):
            app.resize(1, 1)
            live.next_steps(2)
            app.resize(100, 30)
            _redraws(app, live)
            for _ in range(200):
                app.resize(sizes.randint(1, 200), sizes.randint(1, 60))
                app.drain()
            app.resize(100, 30)
            _redraws(app, live)
        app.signal(signal.SIGTERM)
        app.wait()
        assert left_on(bytes(app.raw)) == []


def _redraws(app: Line, live: Shifted) -> None:
    now = live.status().step
    eventually(
        lambda: app._read() and _is_whole(app.screen.display) and shown_step(app) > now, f"not drawn\n{app.text}", 30
    )


def _is_whole(lines: list[str]) -> bool:
    head, top, bottom, foot = lines[0], lines[1], lines[-2], lines[-1]
    framed = (top[0], top[-1], bottom[0], bottom[-1]) == ("╭", "╮", "╰", "╯")
    return framed and "RUNNING" in head and "Leave" in foot and all(line[0] in "╭│╰" for line in lines[1:-1])


@pytest.mark.fault("terminal: very small")
@pytest.mark.parametrize(("columns", "rows"), [(60, 20), (20, 5), (1, 1)])
def test_a_small_terminal_is_drawn_on(live: Shifted, row: Row, columns: int, rows: int) -> None:
    """The app opens, lives on while steps come, and leaves cleanly."""
    with closing(live.attach(columns=columns, rows=rows)) as app:
        eventually(lambda: app._read() and len(app.raw) > 400, "nothing is drawn")
        live.next_steps(2)
        while app._read_rest():
            pass
        assert app.status() is None, bytes(app.raw[-2000:])
        assert b"Traceback" not in app.raw
        app.signal(signal.SIGTERM)
        app.wait()
        assert left_on(bytes(app.raw)) == []


@pytest.mark.fault("terminal: none, or TERM=dumb")
@pytest.mark.parametrize("command", [["demo"], ["attach", "RUN"], []])
def test_without_a_terminal_the_headless_way_is_named(
    live: Shifted, row: Row, tmp_path: Path, command: list[str]
) -> None:
    """Status 2, `--headless` named, nothing written to the terminal and no run begun."""
    command = [str(live.folder.path) if word == "RUN" else word for word in command]
    done = cli(*command, "--runs", str(tmp_path))
    assert (done.returncode, done.stdout, "--headless" in done.stderr) == (2, "", True)
    with closing(Line([*APP, *command, "--runs", str(tmp_path)], TERM="dumb")) as app:
        assert app.wait() == 2
        assert b"--headless" in app.raw
        assert b"\x1b" not in app.raw
    assert list(tmp_path.iterdir()) == []


# ---- paths, locales and limits ---------------------------------------------------------------------------------------

UNDECODABLE = os.fsdecode(b"b\xffd")


def train(
    place: Path, *more: str, runs: Path | None = None, name: str = "run", without: tuple[str, ...] = (),
    umask: int = -1, data: Path | None = None, **environment: str,
) -> tuple[subprocess.CompletedProcess[str], RunFolder]:  # fmt: skip
    """Two steps of `acrf-tui train`, headless, in such an environment."""
    config = place / "config.yaml"
    config.write_text(f"model: tiny\ndataset: {data or 'demo'}\nsteps: 2\n", encoding="utf-8")
    runs = runs or place / "runs"
    environ = {key: value for key, value in os.environ.items() if key not in without} | environment
    done = cli(
        "train", str(config), "--headless", "--json", "--runs", str(runs), "--name", name, *more,
        env=environ, umask=umask,
    )  # fmt: skip
    return done, RunFolder(runs / name)


def finished(done: subprocess.CompletedProcess[str], folder: RunFolder) -> None:
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["type"] == "finished"
    assert folder.read_status().state == "finished"
    assert folder.final_lora().is_file()


def modes_in(folder: Path) -> dict[str, str]:
    """Modes of a folder and of everything in it that is not for its user alone."""
    paths = [folder, *folder.rglob("*")]
    return {
        str(path): oct(mode)
        for path in paths
        if (mode := stat.S_IMODE(path.stat().st_mode)) != (0o700 if path.is_dir() else 0o600)
    }


@pytest.mark.fault("environment: long and non-ASCII paths, LC_ALL=C, no HOME, deep TMPDIR, umask 000, all at once")
def test_a_run_in_a_hostile_environment(tmp_path: Path, row: Row, trials: Trials) -> None:
    """It ends with status 0, everything in it for its user alone; the exported LoRA follows the user's umask."""
    deep = tmp_path / ("d" * 60 + "é") / ("e" * 60) / ("f" * 60)
    deep.mkdir(parents=True)
    pictures = Path(shutil.copytree(ASSETS / "demo", deep / "фотографии"))
    done, folder = train(
        tmp_path, runs=deep / "runs", name="ü" * 100, data=pictures, umask=0, without=("HOME", "LANG", "PYTHONUTF8"),
        LC_ALL="C", TMPDIR=str(deep), XDG_STATE_HOME="/proc/nowhere",
    )  # fmt: skip
    finished(done, folder)
    assert modes_in(folder.path) == {}
    for umask, mode in ((0o027, 0o640), (0o077, 0o600))[: trials(1, 2)]:
        target = tmp_path / f"{umask:o}.safetensors"
        done = cli("export", str(folder.path), "--out", str(target), umask=umask)
        assert done.returncode == 0, done.stderr
        assert stat.S_IMODE(target.stat().st_mode) == mode


@pytest.mark.full_only
@pytest.mark.fault("environment: locale, HOME, TMPDIR, state folder, one by one")
@pytest.mark.parametrize(
    ("without", "environment"),
    [
        pytest.param(("LANG",), {"LC_ALL": "C"}, id="LC_ALL=C"),
        pytest.param((), {"LANG": "", "LC_ALL": ""}, id="LANG="),
        pytest.param((), {"PYTHONUTF8": "0"}, id="PYTHONUTF8=0"),
        pytest.param(("HOME",), {}, id="no HOME"),
        pytest.param((), {"XDG_STATE_HOME": "/proc/nowhere"}, id="state folder unwritable"),
        pytest.param((), {"TMPDIR": "/nowhere/at/all"}, id="TMPDIR missing"),
        pytest.param((), {"TMPDIR": "/proc"}, id="TMPDIR unwritable"),
    ],
)
def test_a_run_survives_each_oddity_of_the_environment(
    tmp_path: Path, row: Row, without: tuple[str, ...], environment: dict[str, str]
) -> None:
    """Status 0, the final LoRA written, with pictures and captions of names that are not ASCII."""
    pictures = Path(shutil.copytree(ASSETS / "demo", tmp_path / "données"))
    finished(*train(tmp_path, data=pictures, without=without, **environment))


@pytest.mark.fault("environment: a locale of ASCII only, UTF-8 refused to Python")
def test_a_locale_that_cannot_name_the_files_is_refused_or_survived(tmp_path: Path, row: Row) -> None:
    """Status 0, or status 2 with a sentence; never a traceback."""
    pictures = Path(shutil.copytree(ASSETS / "demo", tmp_path / "données"))
    done, _ = train(tmp_path, data=pictures, without=("LANG",), LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert "Traceback" not in done.stderr
    if done.returncode != 0:
        assert done.returncode == 2
        assert done.stderr.startswith("acrf-tui: ")


@pytest.mark.full_only
@pytest.mark.fault("environment: home folder read-only")
def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, row: Row) -> None:
    """Status 2, naming the cache folder."""
    without = tuple(key for key in os.environ if key.startswith("XDG_"))
    done, _ = train(tmp_path, without=without, HOME="/proc/nowhere")
    assert done.returncode == 2
    assert "cache folder /proc/nowhere" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.full_only
@pytest.mark.fault("paths: a runs folder whose name is no UTF-8")
def test_a_runs_folder_that_is_no_utf_8(tmp_path: Path, row: Row) -> None:
    """The run ends with status 0, or is refused before its first step."""
    done, folder = train(tmp_path, runs=tmp_path / UNDECODABLE / "runs")
    if done.returncode != 2:
        finished(done, folder)


@pytest.mark.full_only
@pytest.mark.fault("paths: pictures in a folder whose name is no UTF-8")
def test_a_data_folder_that_is_no_utf_8(tmp_path: Path, row: Row) -> None:
    """Given relative to such a folder: status 0, or status 2 naming it; never a traceback."""
    here = tmp_path / UNDECODABLE
    here.mkdir()
    shutil.copytree(ASSETS / "demo", here / "photos")
    (here / "c.yaml").write_text("model: tiny\ndataset: ./photos\nsteps: 2\n", encoding="utf-8")
    done = cli("train", "c.yaml", "--headless", "--runs", str(tmp_path / "runs"), "--name", "run", cwd=here)
    assert "Traceback" not in done.stderr
    assert done.returncode in (0, 2)


@pytest.mark.full_only
@pytest.mark.fault("environment: TMPDIR whose name is no UTF-8")
def test_a_temporary_folder_that_is_no_utf_8(tmp_path: Path, row: Row) -> None:
    """The run starts: its socket is then in /tmp, or in that folder."""
    (tmp_path / UNDECODABLE).mkdir()
    finished(*train(tmp_path, TMPDIR=str(tmp_path / UNDECODABLE)))


# ---- other users -----------------------------------------------------------------------------------------------------


@pytest.mark.fault("a second user on the machine")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_gets_nothing(live: Shifted, row: Row) -> None:
    """Run folder, status.json, log and socket are closed to him; with their modes opened, the peer check refuses."""
    path = read_socket_path(live.folder.socket)
    assert path is not None

    def ask() -> bytes:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
            line.settimeout(10)
            line.connect(path)
            line.sendall(b'{"op":"command","name":"stop"}\n')
            return line.recv(100)

    assert as_nobody(lambda: os.listdir(live.runs)) == "['.live.stderr', 'live']", "the place itself must be open"
    tries: list[Callable[[], Any]] = [
        lambda: os.listdir(live.folder.path),
        lambda: live.folder.status.read_text(),
        lambda: live.folder.config.read_text(),
        lambda: live.folder.log.read_text(),
        lambda: live.folder.socket.read_text(),
        lambda: os.listdir(os.path.dirname(path)),
        ask,
    ]
    row.trials = len(tries) + 1
    assert [as_nobody(act) for act in tries] == ["PermissionError"] * len(tries)
    try:
        os.chmod(os.path.dirname(path), 0o755)
        os.chmod(path, 0o777)
        assert as_nobody(ask) in ("b''", "ConnectionResetError", "BrokenPipeError")
    finally:
        os.chmod(path, 0o700)
        os.chmod(os.path.dirname(path), 0o700)
    live.trains_on()


# ---- descriptors; the last test of the live run, as long as it cuts it off -------------------------------------------


@pytest.mark.fault("environment: 64 file descriptors")
def test_with_no_descriptor_left_the_supervisor_answers_again(live: Shifted, row: Row) -> None:
    """With all descriptors taken by clients steps keep coming; once they are free, commands are answered."""
    held = []
    try:
        while len(held) < FEW_DESCRIPTORS and settled(live.supervisor)[0] < FEW_DESCRIPTORS:
            held += [live.connect() for _ in range(4)]
    finally:
        before = live.status().step
        for line in held:
            line.close()
    eventually(lambda: live.status().step > before + 3, "no steps", 20)
    done = cli("control", str(live.folder.path), "set", "snr_gamma=5", timeout=10)
    assert done.returncode == 0, done.stderr

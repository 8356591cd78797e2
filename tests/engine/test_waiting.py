"""Which device a run gets, and the line of runs that wait for one."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import platformdirs
import psutil
import pytest

from acrf_engine.protocol import Ack
from acrf_engine.run import waiting
from acrf_engine.run.admission import Admission
from acrf_engine.run.devices import candidates, visible_gpus
from acrf_engine.run.folder import RunError, RunFolder, create_run
from acrf_engine.run.hardware import GpuReader
from acrf_engine.run.logout import ends_at_logout
from acrf_engine.run.supervisor import Supervisor
from acrf_engine.run.wire import to_wire
from tests.nvml import GIB, Nvml, card

Make = Callable[[str], RunFolder]


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Run folders held as by living supervisors, and a line of this test's own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with contextlib.ExitStack() as stack:

        def make(name: str) -> RunFolder:
            folder = create_run(tmp_path / "runs", name, "")
            stack.enter_context(folder.hold())
            return folder

        yield make


def names() -> list[tuple[str, str]]:
    return [(place.name, place.using) for place in waiting.places()]


def test_the_first_gets_the_device_and_the_others_wait_in_order(held: Make) -> None:
    one, two, three = held("one"), held("two"), held("three")
    assert waiting.take(one, ["gpu"]).device == "gpu"
    assert waiting.take(two, ["gpu"]) == waiting.Turn(number=1, behind="one")
    assert waiting.take(three, ["gpu"]) == waiting.Turn(number=2, behind="one")
    assert waiting.take(one, ["gpu"]).device == "gpu"

    waiting.leave(one)
    assert waiting.take(three, ["gpu"]) == waiting.Turn(number=2, behind="two")
    assert waiting.take(two, ["gpu"]).device == "gpu"
    assert names() == [("two", "gpu"), ("three", "")]


def test_a_run_that_takes_any_card_gets_the_one_that_is_free_first(held: Make) -> None:
    one, two, three = held("one"), held("two"), held("three")
    assert waiting.take(one, ["a", "b"]).device == "a"
    assert waiting.take(two, ["a", "b"]).device == "b"
    assert waiting.take(three, ["a", "b"]).number == 1
    waiting.leave(two)
    assert waiting.take(three, ["a", "b"]).device == "b"


def test_who_waits_for_another_card_is_not_in_the_way(held: Make) -> None:
    one, two, three = held("one"), held("two"), held("three")
    waiting.take(one, ["a"])
    assert waiting.take(two, ["a"]).number == 1
    assert waiting.take(three, ["b"]).device == "b"


def test_sharing_takes_a_card_that_is_in_use(held: Make) -> None:
    one, two, three = held("one"), held("two"), held("three")
    waiting.take(one, ["a"])
    assert waiting.take(two, ["a"], share=True).device == "a"
    waiting.leave(one)
    assert waiting.take(three, ["a"]) == waiting.Turn(number=1, behind="two")


def test_a_waiting_run_can_be_moved(held: Make) -> None:
    folders = [held(name) for name in ("one", "two", "three", "four")]
    for folder in folders:
        waiting.take(folder, ["a"])
    assert waiting.move(folders[3], 1) == 1
    assert [name for name, _ in names()] == ["one", "four", "two", "three"]
    assert waiting.move(folders[3], 99) == 3
    with pytest.raises(RunError, match="run one does not wait"):
        waiting.move(folders[0], 1)
    waiting.leave(folders[0])
    assert waiting.take(folders[1], ["a"]).device == "a"


def test_a_run_that_gives_its_vram_back_lets_the_next_one_go(held: Make) -> None:
    """The acknowledgements of the worker are all that the supervisor needs for it."""

    def acknowledged(command: str) -> dict[str, Any]:
        return to_wire(Ack("c1", command, True, 5))

    one, two = held("one"), held("two")
    supervisor = Supervisor(one)
    supervisor._admission = Admission(one, "auto", "", visible_gpus(two_cards(), {}))
    assert supervisor._admission.ask().device == "GPU-bbb"
    assert waiting.take(two, ["GPU-bbb"]).behind == "one"
    supervisor._receive(acknowledged("free-vram"))
    assert waiting.take(two, ["GPU-bbb"]).device == "GPU-bbb"
    supervisor._receive(acknowledged("reload"))
    assert names() == [("two", "GPU-bbb"), ("one", "GPU-bbb")]
    supervisor.stream.telemetry.close()


HOLD = """
import sys
from acrf_engine.run.folder import RunFolder
from acrf_engine.protocol import Ack
from acrf_engine.run.wire import to_wire
from acrf_engine.run import waiting
from acrf_engine.run.admission import Admission
folder = RunFolder(sys.argv[1])
with folder.hold():
    print(waiting.take(folder, ["a"]).device, flush=True)
    sys.stdin.read()
"""


def test_a_killed_supervisor_leaves_nothing_in_the_line(held: Make, tmp_path: Path) -> None:
    dead = create_run(tmp_path / "runs", "dead", "")
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(dead.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "a\n"
    two = held("two")
    assert waiting.take(two, ["a"]).behind == "dead"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert waiting.take(two, ["a"]).device == "a"
    assert names() == [("two", "a")]


@pytest.mark.parametrize("text", ["", "{", "[1]", '[{"run": 3}]', '{"a": 1}'])
def test_a_spoilt_file_costs_nobody_the_turn(held: Make, text: str) -> None:
    one = held("one")
    waiting.take(one, ["a"])
    file = platformdirs.user_state_path("acrf-tui") / "devices.json"
    assert json.loads(file.read_text())
    file.write_text(text)
    assert waiting.take(one, ["a"]).device == "a"
    assert names() == [("one", "a")]


def test_the_line_belongs_to_its_user_alone(held: Make) -> None:
    waiting.take(held("one"), ["a"])
    folder = platformdirs.user_state_path("acrf-tui")
    assert {path.stat().st_mode & 0o077 for path in folder.glob("devices.*")} == {0}


# ---- which card ------------------------------------------------------------------------------------------------------


def two_cards() -> GpuReader:
    used = SimpleNamespace(pid=os.getpid(), usedGpuMemory=3 * GIB)
    first = card("RTX 4090", 20 * GIB, 60) | {"nvmlDeviceGetUUID": "GPU-aaa"}
    second = card("RTX 3090", 1 * GIB, 60) | {"nvmlDeviceGetUUID": b"GPU-bbb"}
    return GpuReader(Nvml(first | {"nvmlDeviceGetComputeRunningProcesses": [used]}, second))


def test_auto_prefers_the_card_with_most_room() -> None:
    gpus = visible_gpus(two_cards(), {})
    assert [gpu.uuid for gpu in candidates("auto", gpus)] == ["GPU-bbb", "GPU-aaa"]
    assert [gpu.uuid for gpu in candidates("cuda:0", gpus)] == ["GPU-aaa"]
    assert candidates("cpu", gpus) == candidates("auto", []) == []


def test_a_card_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(RunError, match=r"cuda:2: there is no such GPU here.*cuda:0 RTX 4090, cuda:1 RTX 3090"):
        candidates("cuda:2", visible_gpus(two_cards(), {}))


@pytest.mark.parametrize(
    ("visible", "uuids"),
    [
        ("1,0", ["GPU-bbb", "GPU-aaa"]),
        ("1", ["GPU-bbb"]),
        ("GPU-a", ["GPU-aaa"]),
        ("", []),
        ("-1", []),
        ("0,7,1", ["GPU-aaa"]),
    ],
)
def test_cuda_visible_devices_is_honoured(visible: str, uuids: list[str]) -> None:
    gpus = visible_gpus(two_cards(), {"CUDA_VISIBLE_DEVICES": visible})
    assert [gpu.uuid for gpu in gpus] == uuids
    assert [gpu.index for gpu in gpus] == list(range(len(uuids)))


def test_who_else_is_on_a_card_is_named() -> None:
    first, second = visible_gpus(two_cards(), {})
    text = first.others
    assert f"pid {os.getpid()} of {psutil.Process().username()} (3.0 GiB)" in text
    assert "4.0 of 24.0 GiB are free" in text
    assert second.others == ""  # a driver that does not tell


# ---- logging out -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "warns"),
    [
        ({}, False),
        ({"etc/systemd/logind.conf": "[Login]\n#KillUserProcesses=yes\n"}, False),
        ({"etc/systemd/logind.conf": "[Login]\nKillUserProcesses=yes\n"}, True),
        ({"usr/lib/systemd/logind.conf.d/10-kill.conf": "[Login]\nKillUserProcesses = yes\n"}, True),
        (
            {
                "etc/systemd/logind.conf": "[Login]\nKillUserProcesses=yes\n",
                "etc/systemd/logind.conf.d/50-keep.conf": "[Login]\nKillUserProcesses=no\n",
            },
            False,
        ),
        ({"etc/systemd/logind.conf": "KillUserProcesses=yes\n", "var/lib/systemd/linger/ann": ""}, False),
    ],
)
def test_a_machine_that_ends_processes_at_logout_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], warns: bool
) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: "ann")
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert ("enable-linger" in ends_at_logout(tmp_path)) == warns


def test_without_systemd_a_logout_ends_nothing(tmp_path: Path) -> None:
    assert ends_at_logout(tmp_path) == ""

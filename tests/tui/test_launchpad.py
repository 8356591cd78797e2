"""The launchpad with real config files and real run folders."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from textual.widgets import Static

from acrf_engine.config import dump, load_config
from acrf_engine.run import waiting
from acrf_engine.run.folder import RunFolder, create_run
from acrf_tui.app import AcrfApp, AppOptions
from acrf_tui.screens import launchpad as module
from acrf_tui.screens import launchpad_examine, launchpad_runs_box, launchpad_starting
from acrf_tui.screens.dashboard import DashboardScreen
from acrf_tui.screens.dialogs import HelpDialog
from acrf_tui.screens.launchpad import LaunchpadScreen
from acrf_tui.screens.launchpad_check import CheckResult
from acrf_tui.screens.launchpad_dialogs import DeviceDialog, ExtendDialog
from acrf_tui.screens.launchpad_lists import ConfigList, RunList
from acrf_tui.screens.launchpad_outlook import OutlookView
from acrf_tui.screens.launchpad_start import DeviceChoice, Started, device_choices
from acrf_tui.shipped import shipped
from tests.nvml import GIB, Nvml, card
from tests.tui.waiting import until

DEMO = shipped("sample_configs") / "demo.yaml"
REPORT = {
    "pictures": 24, "without_caption": 2, "left_out": [{"path": "/x/bad.png", "reason": "cannot be decoded"}],
    "buckets": {"1024x1024": 20, "832x1216": 4}, "micro_batches_per_epoch": 24, "steps": 60,
    "base_parameters": 6_154_908_736, "trainable_parameters": 9_830_400, "memory": {}, "memory_total": 17 * 2**30,
    "device": "NVIDIA RTX", "device_memory": 24 * 2**30, "disk_needed": 2**28, "disk_free": 2**38,
    "notes": ["latents are cached in ~/.cache"],
}  # fmt: skip


@pytest.fixture(autouse=True)
def home(tmp_path: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(launchpad_examine, "run_check", lambda *_: CheckResult(report=REPORT))
    return tmp_path


def make_run(runs: Path, name: str, state: str, **values: object) -> RunFolder:
    folder = create_run(runs, name, dump(load_config(DEMO)))
    status = folder.recorded_status()
    status.state, status.total_steps = state, 40
    for key, value in values.items():
        setattr(status, key, value)
    folder.write_status(status)
    return folder


def make_app(home: Path) -> AcrfApp:
    return AcrfApp(AppOptions(home / "runs"))


async def launchpad_of(app: AcrfApp) -> LaunchpadScreen:
    await until(lambda: isinstance(app.screen, LaunchpadScreen) and app.screen.is_mounted)
    assert isinstance(app.screen, LaunchpadScreen)
    screen = app.screen
    await until(lambda: screen.query_one(ConfigList).chosen is not None)
    return screen


def outlook_text(screen: LaunchpadScreen) -> str:
    view = screen.query_one(OutlookView)._view
    return "\n".join("".join(text for text, _ in line) for line in view.lines)


def run_rows(screen: LaunchpadScreen) -> list[str]:
    return [str(option.prompt) for option in screen.query_one(RunList).options]


async def test_a_newcomer_sees_the_demo_what_it_will_do_and_that_there_are_no_runs(home: Path) -> None:
    app = make_app(home)
    async with app.run_test(size=(120, 40)):
        screen = await launchpad_of(app)
        assert screen.query_one(ConfigList).has_focus
        chosen = screen.query_one(ConfigList).chosen
        assert chosen is not None
        assert chosen.name == "demo"
        await until(lambda: "24, 2 without caption, 1 left out" in outlook_text(screen))
        text = outlook_text(screen)
        assert "rank 16, alpha 16" in text
        assert "1e-3" in text  # the rate of the demo config
        assert "about 17.0 GiB of the 24.0 GiB of NVIDIA RTX" in text
        assert "71%" in text
        assert "bad.png: cannot be decoded" in text
        assert screen.query_one("#no-runs").display


async def test_settings_are_there_before_the_check_answers(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(_: Path, __: Path, cancelled: Callable[[], bool]) -> None:
        while not cancelled():
            os.sched_yield()

    monkeypatch.setattr(launchpad_examine, "run_check", slow)
    app = make_app(home)
    async with app.run_test(size=(120, 40)):
        screen = await launchpad_of(app)
        await until(lambda: "rank 16" in outlook_text(screen))
        assert "checking" in outlook_text(screen)


async def test_moving_on_shows_the_other_config_and_drops_the_check_of_the_first(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[tuple[str, bool]] = []

    def check(config: Path, _: Path, cancelled: Callable[[], bool]) -> CheckResult | None:
        if config.stem == "demo":
            while not cancelled():
                os.sched_yield()
        checked.append((config.stem, cancelled()))
        return None if cancelled() else CheckResult(report=REPORT)

    monkeypatch.setattr(launchpad_examine, "run_check", check)
    app = make_app(home)
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await launchpad_of(app)
        await until(lambda: "checking" in outlook_text(screen) and "rank 16" in outlook_text(screen))
        await pilot.press("down", "down")
        await until(lambda: ("quick-try", False) in checked)
        assert ("demo", True) in checked
        await until(lambda: "rank 8" in outlook_text(screen) and "pictures" in outlook_text(screen))


async def test_a_broken_config_is_listed_with_its_mistake_and_does_not_start(home: Path) -> None:
    Path("broken.yaml").write_text("# Mine\nmodel: tiny\nlearning_rat: 1e-4\ndataset: demo\n")
    Path("compose.yaml").write_text("services:\n  web: {}\n")
    app = make_app(home)
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await launchpad_of(app)
        await until(lambda: bool(screen.own))
        assert [entry.name for entry in screen.own] == ["broken"]
        await pilot.press("end")
        await until(lambda: "did you mean learning_rate?" in outlook_text(screen).replace("\n  ", " "))
        assert "✗   3  learning_rat: 1e-4" in outlook_text(screen)
        await pilot.press("enter")
        await pilot.pause()
        assert screen.starting == ""
        assert list((home / "runs").glob("*")) == []


async def test_a_corrected_config_is_read_again(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.1)
    own = home / "config" / "acrf-tui" / "configs"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text("# Mine\nmodel: tiny\ndataset: ./nowhere\n")
    app = make_app(home)
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await launchpad_of(app)
        await until(lambda: bool(screen.own))
        await pilot.press("end")
        await until(lambda: "there is no such folder" in outlook_text(screen).replace("\n  ", " "))
        assert "Press n to choose your own picture folder" in outlook_text(screen)
        (own / "mine.yaml").write_text("# Mine\nmodel: tiny\ndataset: demo\nnetwork_dim: 4\n")
        await until(lambda: "rank 4" in outlook_text(screen) and "24, 2 without" in outlook_text(screen))


async def test_runs_are_listed_newest_first_with_state_step_and_loss(home: Path) -> None:
    make_run(home / "runs", "old", "finished", step=40, loss=0.5, created=1000.0)
    make_run(home / "runs", "new", "stopped", step=12, loss=1.25, created=2000.0)
    make_run(home / "elsewhere", "far", "failed", error="out of memory", created=1500.0)
    app = make_app(home)
    async with app.run_test(size=(120, 40)):
        screen = await launchpad_of(app)
        await until(lambda: len(run_rows(screen)) == 3)
        first, second, third = run_rows(screen)
        assert "stopped" in first
        assert "new" in first
        assert "12 / 40" in first
        assert "1.2500" in first
        assert "failed" in second
        assert "elsewhere" in second
        assert "finished" in third


async def test_a_list_of_runs_follows_the_files_and_keeps_the_choice(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.1)
    folder = make_run(home / "runs", "one", "stopped", created=1000.0)
    app = make_app(home)
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await launchpad_of(app)
        await until(lambda: len(run_rows(screen)) == 1)
        await pilot.press("tab")
        make_run(home / "runs", "two", "finished", created=2000.0)
        await until(lambda: len(run_rows(screen)) == 2)
        chosen = screen.query_one(RunList).chosen
        assert chosen is not None
        assert chosen.name == "one"
        status = folder.recorded_status()
        status.step = 33
        folder.write_status(status)
        await until(lambda: "33 / 40" in run_rows(screen)[1])


async def test_a_stopped_run_is_resumed_and_a_finished_one_trained_further(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished = make_run(home / "runs", "ended", "finished", created=2000.0, step=40)
    stopped = make_run(home / "runs", "halted", "stopped", created=1000.0)
    resumed: list[tuple[Path, int | None]] = []

    def fake(folder: RunFolder, steps: int | None = None) -> Started:
        resumed.append((folder.path, steps))
        return Started(folder)

    monkeypatch.setattr(launchpad_starting, "resume", fake)
    app = make_app(home)
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await launchpad_of(app)
        await until(lambda: len(run_rows(screen)) == 2)
        await pilot.press("r")  # the configs have the focus: nothing to resume
        await pilot.press("tab")
        assert screen.active_bindings["r"].binding.description == "Train on"
        assert "trains it further" in str(screen.query_one("#runs-box").border_subtitle)
        await pilot.press("r")
        await until(lambda: isinstance(app.screen, ExtendDialog))
        await pilot.press("2", "0", "enter")  # below what it has: refused
        assert isinstance(app.screen, ExtendDialog)
        await pilot.press("0", "enter")
        await until(lambda: isinstance(app.screen, DashboardScreen))
        assert resumed == [(finished.path, 200)]
        await pilot.press("q")
        await until(lambda: app.screen is screen)
        await pilot.press("down")
        assert screen.active_bindings["r"].binding.description == "Resume"
        await pilot.press("r")
        await until(lambda: isinstance(app.screen, DashboardScreen))
        assert resumed[1:] == [(stopped.path, None)]


async def test_a_run_that_waits_for_a_device_says_so_and_can_be_moved_and_taken_out(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn = {"for": "GPU 0", "number": 2, "behind": "night"}
    folder = make_run(home / "runs", "later", "starting", extra={"waiting": turn})
    done: list[tuple[str, Path]] = []
    monkeypatch.setattr(launchpad_runs_box, "move_up", lambda run: done.append(("up", run.path)) or "moved")
    monkeypatch.setattr(launchpad_runs_box, "cancel", lambda run: done.append(("out", run.path)) or "cancelled")
    app = make_app(home)
    with folder.hold():
        async with app.run_test(size=(120, 40)) as pilot:
            screen = await launchpad_of(app)
            await until(lambda: len(run_rows(screen)) == 1)
            await pilot.press("tab")
            assert "waiting" in run_rows(screen)[0]
            assert "GPU 0, number 2 in the line, night uses it" in str(screen.query_one("#runs-box").border_subtitle)
            assert "r" not in screen.active_bindings
            await pilot.press("u", "x")
            await until(lambda: sorted(done) == [("out", folder.path), ("up", folder.path)])


async def test_where_there_are_several_gpus_or_a_busy_one_it_is_asked(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choices = [
        DeviceChoice("Wait for GPU 0 (RTX 4090)", "night uses it", ("memory.device=cuda:0",), "--wait"),
        DeviceChoice("Start on GPU 1 (RTX 3090)", "23.0 of 24.0 GiB free", ("memory.device=cuda:1",)),
    ]
    started: list[tuple[Any, ...]] = []

    def fake(*given: Any) -> Started:
        started.append(given[2:])
        return Started(make_run(home / "runs", "fresh", "finished"))

    monkeypatch.setattr(launchpad_starting, "device_choices", lambda _: choices)
    monkeypatch.setattr(launchpad_starting, "start", fake)
    app = make_app(home)
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await launchpad_of(app)
        await pilot.press("enter")
        await until(lambda: isinstance(app.screen, DeviceDialog))
        await pilot.press("escape")
        await until(lambda: app.screen is screen and not screen.starting)
        assert started == []
        await pilot.press("enter")
        await until(lambda: isinstance(app.screen, DeviceDialog))
        await pilot.press("down", "enter")
        await until(lambda: isinstance(app.screen, DashboardScreen))
        assert started == [(("memory.device=cuda:1",), "", "")]


def test_what_is_asked_of_two_gpus_of_which_one_is_busy(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    emptier = card("RTX 3090", 1 * GIB, 50) | {"nvmlDeviceGetUUID": "GPU-bbb"}
    cards = Nvml(card("RTX 4090", 20 * GIB, 60) | {"nvmlDeviceGetUUID": "GPU-aaa"}, emptier)
    monkeypatch.setattr("acrf_engine.run.hardware._import_nvml", lambda: cards)
    config = home / "own.yaml"
    config.write_text("model: tiny\n")
    assert [choice.label for choice in device_choices(config)] == [
        "Start on GPU 1 (RTX 3090)",
        "Start on GPU 0 (RTX 4090)",
    ]

    holder = make_run(home / "runs", "night", "running")
    with holder.hold():
        waiting.take(holder, ["GPU-bbb"])
        assert [(choice.label, choice.when_busy) for choice in device_choices(config)] == [
            ("Start on GPU 0 (RTX 4090)", ""),
            ("Wait for GPU 1 (RTX 3090)", "--wait"),
            ("Start beside night on GPU 1", "--share"),
        ]
        config.write_text("model: tiny\nmemory: {device: cuda:0}\n")
        assert device_choices(config) == []


async def test_enter_starts_the_config_once_and_opens_its_dashboard(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Path] = []

    def fake(runs_dir: Path, config: Path, *_: object) -> Started:
        started.append(config)
        return Started(make_run(runs_dir, "fresh", "finished"))

    monkeypatch.setattr(launchpad_starting, "start", fake)
    app = make_app(home)
    async with app.run_test(size=(120, 40)) as pilot:
        await launchpad_of(app)
        await pilot.press("enter", "enter")
        await until(lambda: isinstance(app.screen, DashboardScreen))
        assert started == [DEMO]
        await pilot.press("q")
        screen = await launchpad_of(app)
        await until(lambda: len(run_rows(screen)) == 1)


async def test_a_start_that_fails_is_said_and_the_app_stays(home: Path) -> None:
    (home / "runs").write_text("a file where the folder should be")
    app = make_app(home)
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await launchpad_of(app)
        await until(lambda: "24, 2 without" in outlook_text(screen))
        await pilot.press("enter")
        await until(lambda: "✗" in outlook_text(screen))
        assert "runs" in outlook_text(screen)
        assert screen.starting == ""


async def test_an_unreadable_run_is_listed_and_says_why(home: Path) -> None:
    folder = make_run(home / "runs", "torn", "finished")
    folder.status.write_text("{")
    app = make_app(home)
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await launchpad_of(app)
        await until(lambda: len(run_rows(screen)) == 1)
        assert "unreadable" in run_rows(screen)[0]
        await pilot.press("tab", "enter")
        await until(lambda: len(app._notifications) == 1)
        assert app.screen is screen


@pytest.mark.parametrize(("width", "height"), [(20, 10), (59, 40), (120, 19), (80, 24), (200, 50)])
async def test_any_size_is_drawn(home: Path, width: int, height: int) -> None:
    make_run(home / "runs", "a-run-with-a-name-that-is-much-longer-than-any-column-of-the-table", "stopped", step=7)
    app = make_app(home)
    async with app.run_test(size=(width, height)):
        screen = await launchpad_of(app)
        await until(lambda: len(screen.query_one(RunList).runs) == 1)
        small = width < 60 or height < 20
        assert screen.query_one("#launchpad-too-small", Static).display == small
        assert screen.query_one("#upper").display != small
        if not small:
            row = run_rows(screen)[0]
            assert "7 / 40" in row
            assert len(row) <= width - 2


async def test_help_lists_the_keys_that_work(home: Path) -> None:
    app = make_app(home)
    async with app.run_test(size=(120, 40)) as pilot:
        await launchpad_of(app)
        await pilot.press("question_mark")
        await until(lambda: isinstance(app.screen, HelpDialog))
        assert isinstance(app.screen, HelpDialog)
        texts = " ".join(f"{one.key} {one.tooltip}" for one in app.screen.keys)
        assert "Start the chosen config on your own pictures" in texts
        assert "ctrl+p" in texts


async def test_a_click_chooses_and_does_not_start(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Path] = []

    def fake(_: Path, config: Path, *__: object) -> Started:
        started.append(config)
        return Started(error="no")

    monkeypatch.setattr(launchpad_starting, "start", fake)
    app = make_app(home)
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await launchpad_of(app)
        await pilot.click("#configs", offset=(5, 3))
        chosen = screen.query_one(ConfigList).chosen
        assert chosen is not None
        assert chosen.name == "paper-defaults"
        assert started == []
        await pilot.click("#configs", offset=(5, 3), times=2)
        await until(lambda: len(started) == 1)


@pytest.mark.slow
async def test_the_real_check_and_a_real_start(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    for name in ("STATE", "CONFIG", "CACHE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(home / name.lower()))
    here = home / "here"
    monkeypatch.chdir(here)
    (here / "short.yaml").write_text("# Two steps\nmodel: tiny\ndataset: demo\nsteps: 2\n")
    app = make_app(home)
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await launchpad_of(app)
        await until(lambda: bool(screen.own))
        await pilot.press("end")
        await until(lambda: "16, each with a caption" in outlook_text(screen), 60)
        await pilot.press("enter")
        await until(lambda: isinstance(app.screen, DashboardScreen), 60)
        folder = app.opened[0]
        await until(lambda: not folder.read_status().active, 120)
    status = json.loads(folder.status.read_text())
    assert status["state"] == "finished", status
    assert status["step"] == 2

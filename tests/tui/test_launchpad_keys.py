"""What the launchpad's keys do with configs and runs: copies, marks, the filter, and the trash."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from rich.cells import cell_len
from textual.widgets import Input

from acrf_engine.config import dump, load_config
from acrf_engine.run.folder import RunFolder, create_run
from acrf_engine.run.telemetry import TelemetryWriter
from acrf_engine.run.wire import to_wire
from acrf_tui.app import AcrfApp, AppOptions
from acrf_tui.panels.keys import KeysLine
from acrf_tui.screens import compare
from acrf_tui.screens import launchpad as module
from acrf_tui.screens.compare import CompareScreen
from acrf_tui.screens.launchpad import LaunchpadScreen
from acrf_tui.screens.launchpad_check import CheckResult, Outlook, with_report
from acrf_tui.screens.launchpad_configs import copy_config, own_config_folder, suggested_name
from acrf_tui.screens.launchpad_dialogs import NameDialog
from acrf_tui.screens.launchpad_lists import ConfigList, RunList
from acrf_tui.screens.launchpad_outlook import outlook_lines
from acrf_tui.screens.launchpad_runs import CurveCache, RunSummary, curve_spans, matches, read_runs
from acrf_tui.screens.launchpad_trash_dialogs import DeleteDialog, TrashDialog
from acrf_tui.shipped import shipped
from tests.tui.fake_run import make_step
from tests.tui.test_launchpad_rows import ENTRY, text_of
from tests.tui.waiting import until

DEMO = shipped("sample_configs") / "demo.yaml"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, here: Path, monkeypatch: pytest.MonkeyPatch, unexamined: None) -> Path:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.2)
    return tmp_path


def make_run(home: Path, name: str, state: str = "finished", created: float = 1000.0, steps: int = 0) -> RunFolder:
    folder = create_run(home / "runs", name, dump(load_config(DEMO)))
    status = folder.recorded_status()
    status.state, status.created, status.step, status.total_steps = state, created, steps, 400
    folder.write_status(status)
    if steps:
        write_steps(folder, 1, steps)
    return folder


def write_steps(folder: RunFolder, first: int, last: int, nan_from: int = 10**9) -> None:
    writer = TelemetryWriter(folder.telemetry)
    for number in range(first, last + 1):
        step = make_step(number, 400, loss_balanced=1 / number)
        if number >= nan_from:
            step = replace(step, loss=math.nan)
        writer.record(to_wire(step) | {"seq": number, "time": 1000.0 + number})
    writer.close()


async def launchpad_with(app: AcrfApp, runs: int) -> LaunchpadScreen:
    await until(lambda: isinstance(app.screen, LaunchpadScreen) and app.screen.is_mounted)
    screen = app.screen
    assert isinstance(screen, LaunchpadScreen)
    await until(lambda: len(screen.query_one(RunList).runs) == runs)
    await until(lambda: screen.query_one(ConfigList).chosen is not None)
    return screen


def names(screen: LaunchpadScreen) -> list[str]:
    return [run.name for run in screen.query_one(RunList).runs]


def keys_line(screen: LaunchpadScreen) -> str:
    return "".join(text for text, _ in screen.query_one(KeysLine).lines[0])


def make_app(home: Path) -> AcrfApp:
    return AcrfApp(AppOptions(home / "runs"))


# ---- runs ------------------------------------------------------------------------------------------------------------


async def test_a_deleted_run_goes_to_the_trash_and_comes_back_with_one_key(home: Path) -> None:
    folder = make_run(home, "night", steps=5)
    make_run(home, "other", created=500.0)
    app = make_app(home)
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await launchpad_with(app, 2)
        assert not screen.may_restore()
        await pilot.press("tab", "x")
        await until(lambda: isinstance(app.screen, DeleteDialog))
        await pilot.press("escape")
        await until(lambda: app.screen is screen)
        assert folder.path.is_dir()
        await pilot.press("x")
        await until(lambda: isinstance(app.screen, DeleteDialog))
        await pilot.press("y")
        await until(lambda: names(screen) == ["other"])
        assert not folder.path.exists()
        (item,) = (home / "runs" / ".trash").iterdir()
        assert (item / "config.yaml").is_file()
        await pilot.press("z")
        await until(lambda: names(screen) == ["night", "other"])
        assert folder.read_status().state == "finished"
        assert not screen.may_restore()


async def test_a_run_that_goes_on_cannot_be_deleted(home: Path) -> None:
    folder = make_run(home, "live", "running")
    app = make_app(home)
    with folder.hold():
        async with app.run_test(size=(120, 40)) as pilot:
            screen = await launchpad_with(app, 1)
            await pilot.press("tab")
            assert "x" not in screen.active_bindings
            await pilot.press("x", "delete")
            await pilot.pause()
            assert app.screen is screen
            assert folder.path.is_dir()


async def test_a_run_that_was_taken_up_while_it_was_asked_is_kept(home: Path) -> None:
    folder = make_run(home, "night")
    app = make_app(home)
    async with app.run_test(size=(120, 40)) as pilot:
        await launchpad_with(app, 1)
        await pilot.press("tab", "x")
        await until(lambda: isinstance(app.screen, DeleteDialog))
        with folder.hold():  # someone resumes it
            await pilot.press("y")
            await until(lambda: any("held" in note.message for note in app._notifications))
        assert folder.path.is_dir()


async def test_the_trash_lists_restores_and_is_emptied_after_a_second_press(home: Path) -> None:
    for name in ("one", "two", "three"):
        make_run(home, name)
    app = make_app(home)
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await launchpad_with(app, 3)
        await pilot.press("tab")
        for left in (2, 1, 0):
            await pilot.press("x")
            await until(lambda: isinstance(app.screen, DeleteDialog))
            await pilot.press("y")
            await until(lambda left=left: len(names(screen)) == left)
        await until(lambda: app.screen is screen)
        await pilot.press("t")
        await until(lambda: isinstance(app.screen, TrashDialog))
        assert isinstance(app.screen, TrashDialog)
        assert sorted(item.name for item in app.screen.items) == ["one", "three", "two"]
        wanted = app.screen.items[1].name
        await pilot.press("down", "enter")
        await until(lambda: names(screen) == [wanted])
        await pilot.press("t")
        await until(lambda: isinstance(app.screen, TrashDialog))
        await pilot.press("e")
        await pilot.pause()
        assert len(list((home / "runs" / ".trash").iterdir())) == 2
        await pilot.press("e")
        await until(lambda: app.screen is screen)
        assert list((home / "runs" / ".trash").iterdir()) == []
        assert names(screen) == [wanted]
        await pilot.press("t")
        await until(lambda: isinstance(app.screen, TrashDialog))
        await pilot.press("t")
        await until(lambda: app.screen is screen)


async def test_marked_runs_are_compared_with_one_key(home: Path) -> None:
    for number, name in enumerate(("c", "b", "a")):
        make_run(home, name, created=1000.0 + number, steps=4)
    app = make_app(home)
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await launchpad_with(app, 3)
        await pilot.press("tab", "c")
        await pilot.pause()
        assert app.screen is screen  # one run is no comparison
        await pilot.press("m")  # marks a, goes to b
        assert str(screen.query_one(RunList).options[0].prompt).startswith("▸")
        assert screen.runs_box.border_title == "Runs: 1 marked"
        await pilot.press("down", "c")
        await until(lambda: isinstance(app.screen, CompareScreen))
        assert isinstance(app.screen, CompareScreen)
        assert [run.name for run in app.screen.runs] == ["a", "c"]
        await pilot.press("q")
        await until(lambda: app.screen is screen)
        await pilot.press("space", "c")  # c is marked too; the choice is at the end
        await until(lambda: isinstance(app.screen, CompareScreen))
        await pilot.press("q")
        await until(lambda: app.screen is screen)
        await pilot.press("m")
        assert screen.runs_box.border_title == "Runs: 1 marked"


async def test_behind_another_screen_the_launchpad_is_still(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        make_run(home, name, steps=4)
    looks: list[str] = []
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(compare, "LOOK_SECONDS", 0.1)
    real, other = module.read_runs, compare.Reader.read
    monkeypatch.setattr(module, "read_runs", lambda *given: looks.append("launchpad") or real(*given))
    monkeypatch.setattr(compare.Reader, "read", lambda reader: looks.append("compare") or other(reader))
    app = make_app(home)
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await launchpad_with(app, 2)
        await pilot.press("tab", "m", "c")
        await until(lambda: isinstance(app.screen, CompareScreen) and "compare" in looks)
        await until(lambda: not screen._looking)
        looks.clear()
        await until(lambda: looks.count("compare") > 6)
        assert "launchpad" not in looks
        await pilot.press("q")
        await until(lambda: "launchpad" in looks)


async def test_a_seventh_run_is_not_marked(home: Path) -> None:
    for number in range(7):
        make_run(home, f"r{number}", created=1000.0 - number)
    app = make_app(home)
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await launchpad_with(app, 7)
        await pilot.press("tab", *["m"] * 7)
        await until(lambda: any("6 runs at most" in note.message for note in app._notifications))
        assert screen.runs_box.border_title == "Runs: 6 marked"


async def test_typing_a_slash_filters_runs_by_name_and_state(home: Path) -> None:
    make_run(home, "style-night", "stopped", 3000.0)
    make_run(home, "style-day", "finished", 2000.0)
    make_run(home, "face", "stopped", 1000.0)
    app = make_app(home)
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await launchpad_with(app, 3)
        await pilot.press("tab", "slash", *"style")
        await until(lambda: names(screen) == ["style-night", "style-day"])
        await pilot.press("space", *"stop")  # letters that are keys elsewhere are typed here
        await until(lambda: names(screen) == ["style-night"])
        assert screen.runs_box.border_title == "Runs: 1 of 3"
        await pilot.press("enter")
        await until(lambda: screen.query_one(RunList).has_focus and not screen.query(Input))
        make_run(home, "style-late", "stopped", 4000.0)
        await until(lambda: names(screen) == ["style-late", "style-night"])
        await pilot.press("escape")
        await until(lambda: len(names(screen)) == 4)
        await pilot.press("slash", *"nothing")
        await until(lambda: names(screen) == [])
        assert "“nothing”" in str(screen.query_one("#no-runs").render())
        await pilot.press("escape")
        await until(lambda: len(names(screen)) == 4)


@pytest.mark.parametrize("state", ["finished", "stopped", "running", "waiting"])
async def test_at_80_columns_the_keys_of_a_run_are_all_there(home: Path, state: str) -> None:
    folder = make_run(home, "one", "starting" if state == "waiting" else state, 2000.0)
    if state == "waiting":
        status = folder.recorded_status()
        status.extra = {"waiting": {"for": "GPU 0", "number": 2, "behind": "x"}}
        folder.write_status(status)
    make_run(home, "two")
    app = make_app(home)
    with folder.hold():
        async with app.run_test(size=(80, 24)) as pilot:
            screen = await launchpad_with(app, 2)
            assert all(word in keys_line(screen) for word in ("Start", "Edit", "Copy", "New run", "Help", "Quit"))
            await pilot.press("tab")
            assert screen.query_one(RunList).has_focus
            wanted = {
                "finished": ["Train on", "Delete"],
                "stopped": ["Resume", "Delete"],
                "running": [],
                "waiting": ["Move up", "Take out"],
            }[state]
            line = keys_line(screen)
            assert all(word in line for word in ("Open", "Mark", "Compare", "Filter", "Help", "Quit", *wanted)), line


# ---- configs ---------------------------------------------------------------------------------------------------------


async def test_a_copy_of_a_config_is_ones_own_and_chosen(home: Path) -> None:
    app = make_app(home)
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await launchpad_with(app, 0)
        configs = screen.query_one(ConfigList)
        await pilot.press("d")
        await until(lambda: isinstance(app.screen, NameDialog))
        await pilot.press("enter")
        await until(lambda: configs.chosen is not None and configs.chosen.name == "my-demo")
        target = own_config_folder() / "my-demo.yaml"
        assert target.read_bytes() == DEMO.read_bytes()
        assert target.stat().st_mode & 0o777 == 0o600
        target.write_text("# mine\nmodel: tiny\n")
        await pilot.press("d")  # of the copy; the name that is taken is refused
        await until(lambda: isinstance(app.screen, NameDialog))
        field = app.screen.query_one(Input)
        assert field.value == "my-demo-2"
        field.value = "my-demo"
        await pilot.press("enter")
        assert isinstance(app.screen, NameDialog)
        field.value = "../escape"
        await pilot.press("enter")
        assert isinstance(app.screen, NameDialog)
        field.value = "second"
        await pilot.press("enter")
        await until(lambda: configs.chosen is not None and configs.chosen.name == "second")
        assert target.read_text() == "# mine\nmodel: tiny\n"


async def test_only_ones_own_config_can_be_deleted_and_it_comes_back(home: Path) -> None:
    own = own_config_folder()
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text("# Mine\nmodel: tiny\n")
    Path("project.yaml").write_text("# Of the project\nmodel: tiny\nepochs: 2\n")
    app = make_app(home)
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await launchpad_with(app, 0)
        await until(lambda: len(screen.own) == 2)
        assert "x" not in screen.active_bindings  # a sample
        await pilot.press("end")
        assert "x" not in screen.active_bindings  # of the folder, not of the program
        await pilot.press("up")
        await until(lambda: "x" in screen.active_bindings)
        await pilot.press("x")
        await until(lambda: isinstance(app.screen, DeleteDialog))
        await pilot.press("y")
        await until(lambda: [entry.name for entry in screen.own] == ["project"])
        assert not (own / "mine.yaml").exists()
        await pilot.press("z")
        await until(lambda: {entry.name for entry in screen.own} == {"mine", "project"})
        assert (own / "mine.yaml").read_text() == "# Mine\nmodel: tiny\n"


async def test_e_asks_for_the_editor_and_n_for_a_new_run(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []
    app = make_app(home)

    def seen(message: object) -> None:
        if isinstance(message, (LaunchpadScreen.EditConfig, LaunchpadScreen.NewRun)):
            asked.append((type(message).__name__, message.entry.name))

    async with app.run_test(size=(120, 40), message_hook=seen) as pilot:
        await launchpad_with(app, 0)
        await pilot.press("down", "e")
        await until(lambda: ("EditConfig", "paper-defaults") in asked)
        if len(app.screen_stack) > 2:
            await pilot.press("escape")
        await until(lambda: isinstance(app.screen, LaunchpadScreen))
        await pilot.press("n")
        await until(lambda: ("NewRun", "paper-defaults") in asked)


async def test_configs_are_filtered_by_name_and_comment(home: Path) -> None:
    app = make_app(home)
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await launchpad_with(app, 0)
        configs = screen.query_one(ConfigList)
        every = configs.option_count
        await pilot.press("slash", *"16 gb")
        await until(lambda: configs.option_count == 1)
        assert configs.chosen is not None
        assert configs.chosen.name == "low-vram"
        await pilot.press("enter")
        await until(lambda: configs.has_focus)
        await pilot.press("escape")
        await until(lambda: configs.option_count == every)
        assert configs.chosen.name == "low-vram"


def test_a_copy_never_takes_the_place_of_a_file_that_came_meanwhile(home: Path) -> None:
    target = copy_config(DEMO, "mine")
    target.write_text("precious\n")
    with pytest.raises(FileExistsError):
        copy_config(DEMO, "mine")
    assert target.read_text() == "precious\n"


def test_names_of_copies_are_never_taken() -> None:
    assert suggested_name("demo", set()) == "my-demo"
    assert suggested_name("demo", {"my-demo"}) == "my-demo-2"
    assert suggested_name("my-demo-2", {"my-demo", "my-demo-2"}) == "my-demo-3"


# ---- what is listed --------------------------------------------------------------------------------------------------


def test_a_curve_falls_from_top_to_bottom_and_shows_where_it_was_not_a_number() -> None:
    spans = curve_spans([4.0, 3.0, 2.0, 1.0, math.nan, 1.0], 5)
    text = "".join(text for text, _ in spans)
    assert text == "⠑⢄×  "
    assert [role for part, role in spans if part == "×"] == ["bad"]


@pytest.mark.parametrize("count", [0, 1, 2, 47, 48, 500])
@pytest.mark.parametrize("width", [1, 10, 24])
def test_a_curve_is_as_wide_as_its_column(count: int, width: int) -> None:
    for values in ([1.0] * count, [float(n) for n in range(count)], [math.nan] * count):
        assert sum(cell_len(text) for text, _ in curve_spans(values, width)) == width


def test_a_curve_is_read_again_only_where_the_run_has_changed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_run(home, "one", steps=20)
    make_run(home, "two", steps=20)
    read: list[str] = []
    from acrf_engine.run import curves

    real = curves.sparkline
    monkeypatch.setattr(curves, "sparkline", lambda run, points: read.append(run.name) or real(run, points))
    cache = CurveCache()
    first = read_runs(home / "runs", cache)
    assert [len(run.curve) for run in first] == [20, 20]
    read.clear()
    assert read_runs(home / "runs", cache) == first
    assert read == []
    write_steps(folder, 21, 30, nan_from=30)
    by_name = {run.name: run for run in read_runs(home / "runs", cache)}
    assert read == ["one"]
    assert len(by_name["one"].curve) == 30
    assert math.isnan(by_name["one"].curve[-1])


@pytest.mark.parametrize(
    ("words", "found"), [("", True), ("NIGHT", True), ("stop night", True), ("finished", False), ("night x", False)]
)
def test_words_are_looked_for_in_name_and_state(words: str, found: bool) -> None:
    assert matches(RunSummary(Path("/r/last-night"), "stopped"), words) is found


# ---- the check -------------------------------------------------------------------------------------------------------

REPORT = {
    "pictures": 30, "without_caption": 22, "uncaptioned": [f"p{n}.png" for n in range(20)], "left_out": [],
    "buckets": {"1024x1024": 20, "832x1216": 4, "1216x832": 6}, "micro_batches_per_epoch": 30, "steps": 600,
    "base_parameters": 6_000_000_000, "trainable_parameters": 9_830_400, "memory": {"base weights": 2**34, "none": 0},
    "memory_total": 17 * 2**30, "device": "GPU 0 (RTX)", "device_memory": 24 * 2**30, "disk_needed": 2**28,
    "disk_free": 2**38, "notes": [], "step_time_s": 0.5, "step_time_run": "night",
}  # fmt: skip


def shown(height: int = 40, **changes: object) -> list[str]:
    outlook = with_report(Outlook(), CheckResult(report={**REPORT, **changes}))
    return text_of(outlook_lines(ENTRY, outlook, 76, height))


def test_the_time_is_what_an_earlier_run_measured_or_not_known() -> None:
    assert "time       about 0:05:00 (0.5 s a step in run night)" in shown()
    assert "time       not known before the first steps" in shown(step_time_s=None)


def test_pictures_without_a_caption_are_named() -> None:
    text = " ".join(line.strip() for line in shown())
    assert "no caption: p0.png, p1.png" in text
    assert "p19.png and 2 more" in text


def test_buckets_are_a_table_where_there_is_room() -> None:
    lines = shown()
    first = next(index for index, line in enumerate(lines) if line.startswith("buckets"))
    assert [line.split()[-3:-1] for line in lines[first : first + 3]] == [
        ["1024×1024", "20"],
        ["1216×832", "6"],
        ["832×1216", "4"],
    ]
    assert len({len(line.rstrip("━")) for line in lines[first : first + 3]}) == 1
    assert any("1024×1024 (20), 1216×832 (6), 832×1216 (4)" in line for line in shown(10))


def test_the_parts_of_the_memory_are_told_where_there_is_room() -> None:
    assert any("base weights 16.0 GiB" in line for line in shown())
    assert not any("base weights" in line for line in shown(10))

"""The new-run form: paths, live counts, overrides, and nothing typed is ever lost."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.widgets import Input, Static

from acrf_engine.config import PICTURE_SUFFIXES, load_config
from acrf_engine.run.folder import RunFolder, create_run
from acrf_tui.app import AcrfApp, AppOptions
from acrf_tui.screens import launchpad_start
from acrf_tui.screens.dashboard import DashboardScreen
from acrf_tui.screens.launchpad import LaunchpadScreen
from acrf_tui.screens.launchpad_start import Started, start, yaml_override
from acrf_tui.screens.new_run import NewRunDialog, Prefill, overrides_of, prefill_of
from acrf_tui.screens.new_run_paths import candidates, common_beginning, count_pictures, holds_what_is_wanted
from acrf_tui.shipped import shipped
from tests.tui.waiting import until

DEMO = shipped("sample_configs") / "demo.yaml"
FACE = shipped("sample_configs") / "face.yaml"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, here: Path, unexamined: None) -> Path:
    return tmp_path


@pytest.fixture
def photos(home: Path) -> Path:
    """Three pictures, one without a caption, and a hidden folder that does not count."""
    folder = home / "here" / "my photos"
    (folder / "sub").mkdir(parents=True)
    (folder / ".thumbs").mkdir()
    for name in ("a.png", "a.txt", "b.JPG", "notes.md", "sub/c.webp", "sub/c.txt", ".thumbs/d.png"):
        (folder / name).write_bytes(b"x")
    return folder


# ---- paths -----------------------------------------------------------------------------------------------------------


def test_completion_offers_folders_and_hidden_ones_only_when_asked(photos: Path) -> None:
    assert candidates("my") == ["my photos/"]
    assert candidates("my photos/") == ["my photos/sub/"]
    assert candidates("my photos/.") == ["my photos/.thumbs/"]
    assert candidates("my photos/", folders_only=False)[0] == "my photos/a.png"
    assert candidates("nowhere/x") == []
    assert candidates(f"{photos}/s") == [f"{photos}/sub/"]


def test_completion_keeps_the_tilde(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(home))
    assert candidates("~") == ["~/"]
    assert candidates("~/he") == ["~/here/"]


def test_common_beginning() -> None:
    assert common_beginning(["photos/", "phones/"]) == "pho"
    assert common_beginning(["one/"]) == "one/"


def test_a_folder_of_pictures_needs_no_completion(photos: Path) -> None:
    assert holds_what_is_wanted(f"{photos}/")
    assert not holds_what_is_wanted(str(photos))
    assert not holds_what_is_wanted(f"{photos.parent}/")


def test_counting_needs_no_decoding_and_names_the_exact_problem(photos: Path) -> None:
    assert count_pictures(str(photos), PICTURE_SUFFIXES).sentence == "3 pictures, 1 without caption"
    assert count_pictures(f"{photos}/sub", PICTURE_SUFFIXES).sentence == "1 picture, each with a caption"
    assert count_pictures(f"{photos}/a.png", PICTURE_SUFFIXES).problem.startswith("this is a file")
    assert count_pictures("nowhere", PICTURE_SUFFIXES).problem == "there is no such folder"
    (photos / "empty").mkdir()
    assert count_pictures(f"{photos}/empty", PICTURE_SUFFIXES).problem.endswith("it is empty")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_closed_folder_is_said(photos: Path) -> None:
    photos.chmod(0)
    try:
        assert "cannot be read" in count_pictures(str(photos), PICTURE_SUFFIXES).problem
    finally:
        photos.chmod(0o700)


# ---- overrides -------------------------------------------------------------------------------------------------------


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_any_text_survives_the_way_through_yaml(text: str) -> None:
    assert load_config(DEMO, [yaml_override("trigger", text)]).trigger == text


@pytest.mark.parametrize("text", ["yes", "1e-4", "a: b", "#x", "'quoted'", '"', "- x", "null", "ünï 🖼", "a\\b", "{x}"])
def test_words_that_yaml_would_read_otherwise_stay_words(text: str) -> None:
    assert load_config(DEMO, [yaml_override("trigger", text)]).trigger == text


def test_only_what_was_changed_overrides_the_config(photos: Path) -> None:
    before = prefill_of(FACE)
    assert before == Prefill("", "ohwx person", "tiny", "40", "0.0001")
    assert overrides_of(before, before) == []
    now = Prefill(f"{photos}/", "", "tiny", "3", "5e-5")
    config = load_config(FACE, overrides_of(before, now))
    assert config.dataset == str(photos)
    assert config.trigger == ""
    assert config.epochs == 3
    assert config.learning_rate == 5e-5
    assert config.turbo_steps == 8


# ---- starting --------------------------------------------------------------------------------------------------------


def test_a_start_resolves_the_config_and_launches(home: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    launched: list[RunFolder] = []

    def launch(folder: RunFolder, _: str = "") -> Started:
        launched.append(folder)
        return Started(folder)

    monkeypatch.setattr(launchpad_start, "_launch", launch)
    started = start(home / "runs", DEMO, [yaml_override("dataset", "my photos")], "mine")
    assert started.folder is not None
    assert started.folder.path == home / "runs" / "mine"
    assert load_config(started.folder.config).dataset == str(photos)
    assert start(home / "runs", DEMO, [], "mine").error.startswith("run 'mine' exists")
    assert "learning_rate" in start(home / "runs", DEMO, ["learning_rate=fast"], "other").error
    assert len(launched) == 1


def test_a_launch_that_fails_leaves_a_failed_run(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from acrf_engine.run import client

    def refuse(_: RunFolder, *__: object) -> None:
        raise OSError("no more processes")

    monkeypatch.setattr(client, "launch", refuse)
    started = start(home / "runs", DEMO, [], "mine")
    assert started.error == "no more processes"
    status = RunFolder(home / "runs" / "mine").read_status()
    assert (status.state, status.error) == ("failed", "no more processes")


# ---- the form --------------------------------------------------------------------------------------------------------


async def form_of(app: AcrfApp) -> NewRunDialog:
    await until(lambda: isinstance(app.screen, LaunchpadScreen) and app.screen.is_mounted)
    await until(lambda: "n" in app.screen.active_bindings)
    app.screen.action_new_run()
    await until(lambda: isinstance(app.screen, NewRunDialog) and app.screen.prefill.model != "")
    assert isinstance(app.screen, NewRunDialog)
    return app.screen


def says(form: NewRunDialog) -> str:
    return str(form.query_one("#dataset-says", Static).content)


def wrong(form: NewRunDialog) -> str:
    return str(form.query_one("#new-run-says", Static).content)


async def test_the_form_is_prefilled_and_counts_while_typing(home: Path, photos: Path) -> None:
    app = AcrfApp(AppOptions(home / "runs"))
    async with app.run_test(size=(120, 40)) as pilot:
        form = await form_of(app)
        assert form.query_one("#model-input", Input).value == "tiny"
        assert form.query_one("#epochs", Input).value == "150"
        assert says(form) == "empty: the data set of this config"
        await pilot.press("m", "tab")
        assert form.query_one("#dataset-input", Input).value == "my photos/"
        await until(lambda: says(form) == "3 pictures, 1 without caption")
        assert form.query_one("#name", Input).value.startswith("my-photos-")
        await pilot.press("x")
        await until(lambda: says(form) == "there is no such folder")
        await pilot.press("backspace", "tab")
        assert form.focused is form.query_one("#name")


async def test_tab_lists_several_ways_and_enter_takes_one(home: Path) -> None:
    for name in ("phones", "photos"):
        (home / "here" / name).mkdir()
    app = AcrfApp(AppOptions(home / "runs"))
    async with app.run_test(size=(120, 40)) as pilot:
        form = await form_of(app)
        await pilot.press("p", "tab")
        field = form.query_one("#dataset-input", Input)
        assert field.value == "pho"
        assert form.query_one("#dataset-list").display
        await pilot.press("down", "down", "enter")
        await until(lambda: field.value == "photos/")
        assert not form.query_one("#dataset-list").display
        assert field.has_focus


async def test_starting_hands_over_what_was_typed(home: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launchpad_start, "_launch", lambda folder, _: Started(folder))
    app = AcrfApp(AppOptions(home / "runs"))
    async with app.run_test(size=(120, 40)) as pilot:
        form = await form_of(app)
        form.query_one("#dataset-input", Input).value = "my photos"
        form.query_one("#name", Input).value = "portraits"
        form.query_one("#trigger", Input).value = "ohwx: person"
        form.query_one("#learning_rate", Input).value = "5e-5"
        form.query_one("#learning_rate", Input).focus()
        await pilot.press("enter")
        await until(lambda: isinstance(app.screen, DashboardScreen))
    config = load_config(home / "runs" / "portraits" / "config.yaml")
    assert config.dataset == str(photos)
    assert config.trigger == "ohwx: person"
    assert config.learning_rate == 5e-5


async def test_an_error_keeps_what_was_typed(home: Path) -> None:
    create_run(home / "runs", "taken", "")
    app = AcrfApp(AppOptions(home / "runs"))
    async with app.run_test(size=(120, 40)) as pilot:
        form = await form_of(app)
        form.query_one("#name", Input).value = "taken"
        form.query_one("#epochs", Input).value = "many"
        await pilot.press("ctrl+s")
        await until(lambda: wrong(form).startswith("epochs: expected a whole number"))
        form.query_one("#epochs", Input).value = "2"
        await pilot.press("ctrl+s")
        await until(lambda: "run 'taken' exists" in wrong(form))
        assert form.query_one("#epochs", Input).value == "2"
        assert app.screen is form


async def test_escape_closes_without_a_run(home: Path) -> None:
    app = AcrfApp(AppOptions(home / "runs"))
    async with app.run_test(size=(80, 24)) as pilot:
        await form_of(app)
        await pilot.press("escape")
        await until(lambda: isinstance(app.screen, LaunchpadScreen))
    assert not (home / "runs").exists()

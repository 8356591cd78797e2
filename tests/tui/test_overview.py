"""Run overview: what the run is made of, and what its config changes."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from fake_run import FakeSource, make_history, make_plan
from test_dashboard import dashboard, shows
from test_panels import loaded, text_of

from acrf_engine.config import build_config, dump
from acrf_engine.protocol import Checkpoint, Failed, StateChanged
from acrf_tui.charts.lines import width_of
from acrf_tui.panels.overview import config_lines, run_lines
from acrf_tui.panels.overview_facts import Change, FolderFacts, changes, flat, newest_size, read_facts, schema_defaults
from acrf_tui.state import RunState

FOLDER = Path("runs/night-run")


def written(folder: Path, **values: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    config = build_config({"model": "tiny", "dataset": "/photos", **values})
    (folder / "config.yaml").write_text(dump(config))
    return folder


def test_a_run_of_defaults_has_no_changes(tmp_path: Path) -> None:
    facts = read_facts(written(tmp_path / "run"))
    assert facts.changes == ()
    assert (facts.model, facts.dataset, facts.trouble) == ("tiny", "/photos", "")
    assert "all settings are the defaults" in text_of(config_lines(facts, 48, 9)[0])


def test_every_setting_that_differs_is_listed_with_its_default(tmp_path: Path) -> None:
    facts = read_facts(written(tmp_path / "run", network_dim=32, loss={"lambda_fft": 0.0}, data={"flip": True}))
    assert set(facts.changes) == {
        Change("network_dim", "32", "16"), Change("loss.lambda_fft", "0", "0.1"), Change("data.flip", "true", "false"),
    }  # fmt: skip


def test_the_defaults_are_those_of_an_empty_config() -> None:
    empty = dict(flat(build_config({"model": "tiny", "dataset": "/p"}).model_dump(mode="json")))
    defaults = schema_defaults()
    assert all(defaults[key] == value for key, value in empty.items() if key not in ("model", "dataset"))


def test_numbers_of_one_value_are_the_same_and_a_switch_is_no_number() -> None:
    assert changes({"a": 1.0}, {"a": 1}) == []
    assert changes({"a": True}, {"a": 1}) == [Change("a", "true", "1")]
    assert changes({"from": {"tomorrow": "x"}}, {}) == [Change("from.tomorrow", "x", "–")]


def test_a_config_that_is_gone_or_broken_is_told_and_not_taken_for_defaults(tmp_path: Path) -> None:
    assert "config.yaml is gone" in read_facts(tmp_path / "none").trouble
    (tmp_path / "config.yaml").write_text("a: [1\n\x1b[31m")
    facts = read_facts(tmp_path)
    assert facts.trouble
    assert facts.trouble.isprintable()


def test_the_size_of_a_lora_is_measured_where_there_is_a_file(tmp_path: Path) -> None:
    assert newest_size(tmp_path) is None
    (tmp_path / "a.safetensors").write_bytes(bytes(100))
    os.utime(tmp_path / "a.safetensors", (1, 1))
    (tmp_path / "b.safetensors").write_bytes(bytes(200))
    assert newest_size(tmp_path) == 200
    text = "\n".join(text_of(row) for row in run_lines(loaded(), FolderFacts(lora_bytes=41_200_000), FOLDER, 60))
    assert "41.2 MB on disk" in text
    text = "\n".join(text_of(row) for row in run_lines(loaded(), None, FOLDER, 60))
    assert "39.3 MB in fp32" in text


def test_facts_of_the_plan_are_all_there_and_fit() -> None:
    text = [text_of(row) for row in run_lines(loaded(), FolderFacts(), FOLDER, 48)]
    whole = "\n".join(text)
    for part in (
        "Z-Image-Turbo, 6.15 B parameters", "24 pictures", "2 without a caption", "1024x1024: 16", "rank 16, α 16, std",
        "136 modules", "9.83 M parameters", "torch 2.13", "peft 0.18", "python 3.11.9", str(FOLDER),
    ):  # fmt: skip
        assert part in whole
    assert max(map(len, text)) <= 48


def test_a_plan_of_an_older_version_claims_nothing_about_captions() -> None:
    state = loaded()
    state.plan = make_plan(captions_missing=None)
    assert "caption" not in "\n".join(text_of(row) for row in run_lines(state, None, FOLDER, 60))
    state.plan = make_plan(captions_missing=0)
    assert "all with a caption" in "\n".join(text_of(row) for row in run_lines(state, None, FOLDER, 60))


def test_before_the_plan_the_config_says_what_is_coming() -> None:
    facts = FolderFacts(model="models/x", dataset="/photos")
    text = "\n".join(text_of(row) for row in run_lines(RunState(), facts, FOLDER, 60))
    assert "models/x" in text
    assert "/photos" in text
    assert "known when all is loaded" in text
    ended = replace(RunState(), state="failed")
    assert "ended before" in "\n".join(text_of(row) for row in run_lines(ended, facts, FOLDER, 60))


@pytest.mark.parametrize("height", [3, 6, 12, 40])
@pytest.mark.parametrize("width", [30, 44, 90])
def test_many_changes_are_cut_with_a_count_and_never_leave_their_place(width: int, height: int) -> None:
    many = FolderFacts(tuple(Change(f"group.setting_{n}", "a long value " * 3, "0.25") for n in range(20)))
    rows = config_lines(many, width, height)
    assert len(rows) <= max(height, 3)
    assert all(width_of(row) <= width for row in rows[1:])
    if height < 21:
        assert f"{20 - (len(rows) - 2)} more" in text_of(rows[-1])


async def test_the_overview_has_its_place_on_a_large_screen_and_its_number_elsewhere(tmp_path: Path) -> None:
    source = FakeSource(make_history(100))
    source.folder = written(tmp_path / "night-run", network_dim=32)
    async with dashboard(source, (200, 50)) as (pilot, screen):
        await shows(pilot, "8 Run overview", "136 modules", "network_dim", "1 setting changed")
        assert screen.maximized is None
        await pilot.resize_terminal(120, 40)
        await pilot.press("8")
        await shows(pilot, "network_dim", "32", "16")
        assert screen.maximized is screen.query_one("#overview")


async def test_the_size_of_the_lora_is_measured_again_when_one_was_saved(tmp_path: Path) -> None:
    source = FakeSource(make_history(100))
    source.folder = written(tmp_path / "night-run")
    async with dashboard(source, (200, 50)) as (pilot, _):
        await shows(pilot, "39.3 MB in fp32")
        (source.folder / "lora").mkdir()
        (source.folder / "lora" / "night-run.safetensors").write_bytes(bytes(1_500_000))
        source.push(Checkpoint(100, "checkpoints/step-000100", 1, 0.1))
        await shows(pilot, "1.5 MB on disk")


@pytest.mark.parametrize("state", ["starting", "caching", "running", "paused", "stopped", "failed", "finished"])
@pytest.mark.parametrize("gpus", [0, 1])
async def test_no_panel_is_blank_in_any_state(state: str, gpus: int) -> None:
    early = state in ("starting", "caching")
    source = FakeSource(make_history(0 if early or state in ("failed", "stopped") else 30, gpus=gpus))
    async with dashboard(source, (200, 50)) as (pilot, screen):
        source.push(StateChanged(state, 0, 0 if early else 4000))
        if state == "failed":
            source.push(Failed(0, "out of memory"))
        await shows(pilot, state.upper())
        await pilot.pause(0.6)
        lines = [strip.text for strip in screen._compositor.render_strips()]
        for panel in screen.panels:
            x, y, width, height = panel.region.shrink((1, 1, 1, 1))
            inside = "".join(row[x : x + width] for row in lines[y : y + height])
            assert len(inside.strip(" │")) > 8, panel.TITLE

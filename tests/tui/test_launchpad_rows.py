"""What the launchpad writes, without an app: settings, the check's report, errors, and the columns of the runs."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.cells import cell_len

from acrf_engine.config import build_config, load_config
from acrf_tui.charts.lines import Line
from acrf_tui.panels.numbers import age
from acrf_tui.screens.launchpad_check import Outlook, read_settings, remedy, run_check, size
from acrf_tui.screens.launchpad_configs import (
    ConfigEntry,
    leading_comment,
    looks_like_config,
    own_configs,
    settings_rows,
)
from acrf_tui.screens.launchpad_outlook import TALL, outlook_lines
from acrf_tui.screens.launchpad_runs import RunSummary, columns_for, head, row
from acrf_tui.shipped import shipped

DEMO = shipped("sample_configs") / "demo.yaml"
KNOWN = frozenset({"model", "dataset", "epochs"})
ENTRY = ConfigEntry(Path("/x/mine.yaml"), "own", "For me: portraits. More words.")


def text_of(lines: list[Line]) -> list[str]:
    return ["".join(text for text, _ in line) for line in lines]


# ---- configs ---------------------------------------------------------------------------------------------------------


def test_the_leading_comment_is_the_description() -> None:
    assert leading_comment("# For me:\n#   portraits.\nmodel: tiny  # not this\n") == "For me: portraits."
    assert leading_comment("\n\n# late\n\n# later\n") == "late"
    assert leading_comment("model: tiny\n# after\n") == ""


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("model: tiny\ndataset: demo\n", True),
        ("epochs: 3\n", True),
        ("model: tiny\ndataset: [unclosed\n", True),
        ("services:\n  model: x\n", False),
        ("model: gpt\nservices: {}\n", False),
        ("", False),
        ("- a\n- b\n", False),
    ],
)
def test_what_looks_like_a_config(tmp_path: Path, text: str, wanted: bool) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(text)
    assert looks_like_config(file, KNOWN) is wanted


def test_binary_and_huge_files_are_no_configs(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\x00model: x\ndataset: y\n")
    (tmp_path / "b.yaml").write_text("model: tiny\ndataset: demo\n" + "#" * 300_000)
    (tmp_path / ".hidden.yaml").write_text("model: tiny\ndataset: demo\n")
    assert own_configs(tmp_path) == []


def test_settings_have_units_and_are_not_rounded() -> None:
    config = build_config({"learning_rate": 0.00015, "batch_size": 2, "trigger": "ohwx", "lora": {"targets": "ext"}})
    rows = dict(settings_rows(config))
    assert rows["rate"] == "1.5e-4, cosine, 3 arcs to 1e-6"
    assert rows["length"] == "10 epochs, 8 pictures a step (2 × 4)"
    assert rows["LoRA"] == "rank 16, alpha 16, attention + feed-forward"
    assert rows["trigger"] == "ohwx"
    one = dict(settings_rows(build_config({"epochs": 1, "scheduler": "constant", "snr_gamma": 0.0})))
    assert one["length"].startswith("1 epoch,")
    assert one["rate"] == "1e-4, constant"
    assert one["loss"].endswith("not weighted")


# ---- the outlook -----------------------------------------------------------------------------------------------------


def test_an_estimate_above_the_card_is_marked() -> None:
    outlook = Outlook(rows=[("memory", "about 30 GiB of the 24 GiB")], memory_share=1.25)
    meter = next(line for line in outlook_lines(ENTRY, outlook, 80) if "125%" in "".join(text for text, _ in line))
    assert {role for text, role in meter if text.strip()} == {"bad"}


def test_where_it_is_low_the_check_stands_first() -> None:
    outlook = Outlook(settings=[("model", "tiny")], rows=[("pictures", "16")])
    low = text_of(outlook_lines(ENTRY, outlook, 60, TALL - 1))
    high = text_of(outlook_lines(ENTRY, outlook, 60, TALL))
    assert low[0] == "For me"
    assert low.index("pictures   16") < low.index("model      tiny")
    assert high[0] == "For me: portraits. More words."
    assert high.index("pictures   16") > high.index("model      tiny")


def test_wide_terminals_show_both_beside_each_other() -> None:
    outlook = Outlook(settings=[("model", "tiny")], rows=[("pictures", "16")])
    assert any("tiny" in text and "16" in text for text in text_of(outlook_lines(ENTRY, outlook, 140)))


def test_an_error_is_given_whole_and_its_line_is_marked() -> None:
    error = f"{ENTRY.path}:2: epochs: expected a whole number, got 'many' {'very ' * 30}end"
    outlook = Outlook(error=error, source=["model: tiny", "epochs: many"])
    lines = text_of(outlook_lines(ENTRY, outlook, 40))
    joined = " ".join(line.strip(" ✗") for line in lines)
    assert "expected a whole number" in joined
    assert "end" in joined
    assert "✗   2  epochs: many" in lines
    assert max(map(cell_len, lines)) <= 40


def test_a_long_path_in_an_error_is_broken_not_cut() -> None:
    path = "/srv/" + "folder-" * 20 + "photos"
    lines = text_of(outlook_lines(ENTRY, Outlook(error=f"{path}: dataset: there is no such folder"), 50))
    assert path in "".join(line.strip(" ✗") for line in lines)


def test_remedies_follow_the_key_not_the_path() -> None:
    assert "picture folder" in remedy("/x: dataset: there is no such folder")
    assert "model" in remedy("/x: model: no model_index.json in this folder")
    assert "Correct the file" in remedy("/srv/dataset/model/x.yaml:3: epochs: expected a whole number")


def test_settings_of_a_config_without_its_folder_are_still_shown(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("model: tiny\ndataset: ./gone\n")
    outlook = read_settings(file)
    assert outlook.settings
    assert "there is no such folder" in outlook.error
    assert not outlook.checking


def test_a_check_that_nobody_waits_for_is_ended(tmp_path: Path) -> None:
    begun = time.monotonic()
    assert run_check(DEMO, tmp_path, lambda: True) is None
    assert time.monotonic() - begun < 5


def test_sizes() -> None:
    assert [size(n) for n in (0, 2**20, 1.5 * 2**30, 300 * 2**30, 2**41)] == [
        "0.0 MiB", "1.0 MiB", "1.5 GiB", "300 GiB", "2.0 TiB",
    ]  # fmt: skip


# ---- runs ------------------------------------------------------------------------------------------------------------

RUN = RunSummary(Path("work/runs/night-run").absolute(), "running", 412, 4000, 0.31415, 1000.0)


@pytest.mark.parametrize("width", [56, 76, 96, 116, 196])
def test_columns_stand_below_their_names_and_fit(width: int) -> None:
    runs = [RUN, replace(RUN, folder=Path("/r/" + "long" * 30), state="interrupted", loss=None, total_steps=0)]
    columns = columns_for(runs, width)
    names = head(columns)
    for run in runs:
        text = "".join(part for part, _ in row(run, columns, 1000.0 + 7200))
        assert cell_len(text) <= width
        assert text[names.index("step") + 4 - columns.step :].lstrip().startswith(f"{run.step}")
        assert text[: names.index("name")].strip(" ●✗").startswith(run.state)
        assert "2 h" in text


def test_wide_characters_and_hidden_commands_in_names_keep_the_columns() -> None:
    runs = [RUN, replace(RUN, folder=Path("/r/写真-训练")), replace(RUN, folder=Path("/r/a\x1b[2Jb\nc"))]
    columns = columns_for(runs, 90)
    texts = ["".join(part for part, _ in row(run, columns, 2000.0)) for run in runs]
    assert len({cell_len(text) for text in texts}) == 1
    assert not any("\x1b" in text or "\n" in text for text in texts)


def test_ages_are_coarse() -> None:
    assert [age(n) for n in (0, 59, 60, 3599, 3600, 86400 * 3)] == ["now", "now", "1 min", "59 min", "1 h", "3 d"]


def test_every_sample_has_rows_for_its_settings() -> None:
    for path in shipped("sample_configs").glob("*.yaml"):
        rows = settings_rows(load_config(path))
        assert all(label and value for label, value in rows)

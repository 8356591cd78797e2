"""The form as data: it follows the schema, and what it does to a text can be undone to the letter."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from acrf_engine.config import RunConfig, load_config
from acrf_engine.yaml_edit import comments_between
from acrf_engine.yaml_source import ConfigError, load_text
from acrf_tui.charts.lines import width_of
from acrf_tui.screens.editor_document import (
    as_in_file,
    at_default,
    effective,
    equal_values,
    lookup,
    means,
    read,
    reason_of_group,
    same,
    states_of,
    with_field,
)
from acrf_tui.screens.editor_fields import FormField, form_of, number_text, value_of_typed
from acrf_tui.screens.editor_rows import columns_for, detail_lines, field_line, matches, rows_of
from acrf_tui.shipped import shipped

GROUPS = form_of()
FIELDS = {field.dotted: field for group in GROUPS for field in group.fields}
SAMPLES = {path.stem: path.read_text(encoding="utf-8") for path in sorted(shipped("sample_configs").glob("*.yaml"))}


def keys_of(model: type[BaseModel]) -> Iterator[str]:
    for name, info in model.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from (f"{name}.{key}" for key in keys_of(info.annotation))
        else:
            yield name


def values_for(field: FormField) -> st.SearchStrategy[Any]:
    if field.kind == "switch":
        return st.booleans()
    if field.kind == "choice" and not field.types:
        return st.sampled_from(field.choices)
    if field.kind == "texts":
        return st.lists(st.sampled_from(["a star", "a: b", "# no comment", "it's"]), max_size=3)
    if "integer" in field.types:
        return st.integers(0, 4096)
    if "number" in field.types:
        return st.floats(0, 10, allow_nan=False)
    return st.sampled_from(["", "ohwx person", "a # b", "yes", "1e-4", "~/pictures", 'it\'s: "x"'])


edits = st.lists(
    st.sampled_from(list(FIELDS.values())).flatmap(lambda f: st.tuples(st.just(f), values_for(f))), max_size=5
)


def test_every_setting_of_the_schema_is_in_the_form_once_with_its_help() -> None:
    assert sorted(field.dotted for group in GROUPS for field in group.fields) == sorted(keys_of(RunConfig))
    assert all(field.help for field in FIELDS.values())
    assert all(group.help for group in GROUPS)


def test_a_field_is_edited_as_its_type_asks() -> None:
    kinds = {name: FIELDS[name].kind for name in ("dataset", "epochs", "optimizer", "data.flip", "preview.prompts")}
    assert kinds == {
        "dataset": "folder", "epochs": "line", "optimizer": "choice", "data.flip": "switch", "preview.prompts": "texts",
    }  # fmt: skip
    assert FIELDS["resolution"].choices == ("auto",)
    assert FIELDS["resolution"].types == {"integer"}
    assert FIELDS["epochs"].allowed == "whole number from 1 to 100,000"
    assert not FIELDS["dataset"].fits([{"path": "a"}])


def test_a_new_setting_of_the_schema_appears_by_itself() -> None:
    class Inner(BaseModel):
        """What is inside."""

        model_config = {"use_attribute_docstrings": True}
        depth: int = 3
        """How deep."""

    class Outer(BaseModel):
        """All."""

        name: str = "x"
        inner: Inner = Inner()

    groups = form_of(Outer)
    assert [(group.title, [field.dotted for field in group.fields]) for group in groups] == [
        ("run", ["name"]),
        ("inner", ["inner.depth"]),
    ]
    assert groups[1].fields[0].help == "How deep."


@pytest.mark.parametrize("name", SAMPLES)
@settings(max_examples=25, deadline=None)
@given(edits=edits)
def test_edited_fields_load_as_they_were_set_and_every_comment_stays(
    name: str, edits: list[tuple[FormField, Any]]
) -> None:
    text = SAMPLES[name]
    wanted = load_text(text, name)[0]
    for field, value in edits:
        text = with_field(read(text, name), field, value)
        wanted = means(wanted, field, value)
    reading = read(text, name)
    assert not reading.error
    assert equal_values(reading.values, wanted)
    for field, value in edits[-1:]:
        assert same(effective(reading, field), value)
    assert sorted(comments_between(text, 0, len(text))) == sorted(
        comments_between(SAMPLES[name], 0, len(SAMPLES[name]))
    )


@pytest.mark.parametrize("name", SAMPLES)
def test_what_was_changed_and_put_back_is_the_file_to_the_letter(name: str) -> None:
    before = read(SAMPLES[name], name)
    for field in FIELDS.values():
        if isinstance(effective(before, field), list):
            continue
        changed = read(with_field(before, field, 7), name)
        assert changed.text != before.text
        assert as_in_file(changed, before, field) == before.text
        if not lookup(before.values, field.key)[0]:
            assert at_default(changed, before, field) == before.text


def test_a_key_of_the_file_stays_in_it_with_its_comment_when_it_is_reset() -> None:
    before = read("epochs: 150   # 600 steps\nlearning_rate: 1e-3\n", "x")
    assert at_default(before, before, FIELDS["epochs"]) == "epochs: 10    # 600 steps\nlearning_rate: 1e-3\n"
    assert at_default(before, before, FIELDS["learning_rate"]) == "epochs: 150   # 600 steps\nlearning_rate: 1e-4\n"


def test_the_form_says_what_the_program_would_say(tmp_path: Path) -> None:
    text = "epochs: many\nlearning_rat: 1\nscheduler: linear\nschedule:\n  cycles: 5\nloss:\n  lambda_cos: -1\n"
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(ConfigError) as refused:
        load_config(tmp_path / "x.yaml")
    reading = read(text, str(tmp_path / "x.yaml"))
    assert "\n".join(reading.messages()) == str(refused.value)
    states = states_of(GROUPS, reading, reading)
    assert states[("epochs",)].reason == "expected a whole number, got 'many'"
    assert states[("epochs",)].shown == "many"
    assert states[("loss", "lambda_cos")].reason.startswith("should be greater than or equal to 0")
    assert [problem.line for problem in reading.problems] == [1, 2, 7]


def test_a_setting_without_effect_is_said_at_its_field() -> None:
    reading = read("scheduler: linear\nschedule:\n  cycles: 5\n", "x")
    states = states_of(GROUPS, reading, reading)
    assert "no effect with scheduler 'linear'" in states[("schedule", "cycles")].reason
    reading = read("loss:\n  lambda_char: 0\n  lambda_cos: 0\n  lambda_fft: 0\n", "x")
    loss = next(group for group in GROUPS if group.title == "loss")
    assert reason_of_group(loss, reading.problems).startswith("all three lambdas are 0")


def test_numbers_are_kept_as_they_were_typed_and_texts_are_texts() -> None:
    assert value_of_typed(FIELDS["learning_rate"], " 5e-5 ") == (5e-5, "5e-5")
    assert value_of_typed(FIELDS["epochs"], "many") == ("many", "")
    assert value_of_typed(FIELDS["epochs"], "2.5") == (2.5, "2.5")
    assert value_of_typed(FIELDS["steps"], "") == (None, "")
    assert value_of_typed(FIELDS["trigger"], "1e-4") == ("1e-4", "")
    assert value_of_typed(FIELDS["resolution"], "512") == (512, "512")
    assert value_of_typed(FIELDS["memory.device"], "cuda:1") == ("cuda:1", "")
    assert [number_text(value) for value in (1e-4, 1e-6, 0.02, 16.0, 0.0, 1.5e-5)] == [
        "1e-4", "1e-6", "0.02", "16", "0", "1.5e-5",
    ]  # fmt: skip


def test_changed_and_set_are_two_things() -> None:
    before = read("epochs: 40\nnetwork_alpha: 16\n", "x")
    states = states_of(GROUPS, read("epochs: 10\nnetwork_alpha: 16\nseed: 3\n", "x"), before)
    epochs, alpha, seed = states[("epochs",)], states[("network_alpha",)], states[("seed",)]
    assert (epochs.changed, epochs.differs) == (True, False)
    assert (alpha.changed, alpha.differs) == (False, False)
    assert (seed.changed, seed.differs) == (True, True)


def test_the_filter_finds_names_and_help_in_closed_groups() -> None:
    closed = {group.key for group in GROUPS}
    assert all(row.field is None for row in rows_of(GROUPS, closed, []))
    found = [row.field.dotted for row in rows_of(GROUPS, closed, ["jitter"]) if row.field is not None]
    assert found == ["jitter_scale", "anchors.jitter"]
    assert matches(FIELDS["learning_rate"], ["learning", "rate"])
    assert not matches(FIELDS["learning_rate"], ["jitter"])


@given(width=st.integers(40, 160), text=st.text(max_size=80))
@settings(max_examples=100, deadline=None)
def test_no_row_is_wider_than_its_list_whatever_is_typed(width: int, text: str) -> None:
    field = FIELDS["trigger"]
    reading = read(with_field(read("", "x"), field, text), "x")
    state = states_of(GROUPS, reading, read("", "x"))[field.key]
    assert width_of(field_line(field, state, columns_for(GROUPS, width))) <= width
    for line in detail_lines(field, state, state, width, 5):
        assert width_of(line) <= width
        assert all(part.isprintable() for part, _ in line)

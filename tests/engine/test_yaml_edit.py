"""Editing YAML in place: it loads as what was set, and nobody's comments are lost."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from acrf_engine.config import RunConfig
from acrf_engine.yaml_edit import EditError, comments_between, with_value, without
from acrf_engine.yaml_source import load_text, parse_text, scalar_text

SAMPLES = {path.stem: path.read_text(encoding="utf-8") for path in sorted(Path("sample_configs").glob("*.yaml"))}
ODD = {
    "nothing": "",
    "only comments": "# one\n\n# two\n",
    "no end of line": "model: tiny  # the model\nloss:\n  lambda_cos: 0.2  # cos",
    "flow": "loss: {lambda_cos: 0.2, lambda_fft: 0.3}  # both\nmodel: tiny\n",
    "flow over lines": "loss: {\n  lambda_cos: 0.2,  # cos\n  lambda_fft: 0.3,\n}\nmodel: tiny\n",
    "all flow": "{model: tiny, loss: {lambda_cos: 0.2}}\n",
    "empty group": "loss:  # nothing yet\n# more\nmodel: tiny\n",
    "null group": "loss: ~  # nothing yet\nmodel: tiny\n",
    "deep indent": "loss:\n      # first\n      lambda_cos: 0.2\n\n      lambda_fft: 0.3   # then\n\n\n# last\n",
    "block text": "trigger: |\n  ohwx\n  person\n\n# after it\nmodel: tiny\n",
    "folded text": "on_finish: >-\n  echo\n  done   # no comment\nmodel: tiny  # a comment\n",
    "quotes": "trigger: \"a # b\"  # why\nmodel: 'tiny'   # quoted\n",
    "list": "preview:\n  prompts:\n    # first\n    - one  # 1\n    # second\n    - 'two'\n  steps: 4\n",
    "list without indent": "preview:\n  prompts:  # what\n  - one\n  - two\n# end\n",
    "list in brackets": "preview:\n  prompts: [one, two]  # what\n  steps: 4\n",
    "sources": "dataset:  # two folders\n  - path: a  # first\n    repeats: 2\n  - path: b\nmodel: tiny\n",
    "start of document": "---\n# c\nmodel: tiny\n",
    "many bytes": "# Größe 🖼\ntrigger: ünï 🖼  # 🖼\nmodel: tiny\n",
}
TEXTS = {**SAMPLES, **ODD}
FIELDS: list[tuple[str, ...]] = [
    ("model",), ("dataset",), ("trigger",), ("epochs",), ("steps",), ("learning_rate",), ("on_finish",),
    ("loss", "lambda_cos"), ("loss", "lambda_fft"), ("loss", "weighting"), ("lora", "refiners"),
    ("preview", "prompts"), ("preview", "steps"), ("schedule", "min_lr"), ("memory", "gradient_checkpointing"),
]  # fmt: skip
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
values = st.one_of(
    st.integers(-5, 10**7),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.none(),
    st.sampled_from(["on", "yes", "1e-4", "# x", "a: b", "- a", "[x]", "{a}", "'", '"', "", " ", "null", "~", "a, b"]),
    words,
    st.lists(st.one_of(words, st.sampled_from(["a: b", "# x", "on", ""])), max_size=4),
)


def order_of(key: tuple[str, ...]) -> list[list[str]]:
    top = list(RunConfig.model_fields)
    return [top] if len(key) == 1 else [top, list(type(getattr(RunConfig(), key[0])).model_fields)]


def expected(text: str, key: tuple[str, ...], value: Any) -> dict[str, Any]:
    found = copy.deepcopy(load_text(text, "t")[0])
    target = found
    for name in key[:-1]:
        if target.get(name) is None:
            target[name] = {}
        target = target[name]
    target[key[-1]] = value
    return found


def comments(text: str) -> list[str]:
    return sorted(comments_between(text, 0, len(text)))


@pytest.mark.parametrize("name", TEXTS)
@settings(max_examples=25, deadline=None)
@given(edits=st.lists(st.tuples(st.sampled_from(FIELDS), values), min_size=1, max_size=4))
def test_what_was_set_is_what_loads_and_every_comment_stays(
    name: str, edits: list[tuple[tuple[str, ...], Any]]
) -> None:
    text = TEXTS[name]
    before = comments(text)
    for key, value in edits:
        wanted = expected(text, key, value)
        text = with_value(text, parse_text(text, "t")[2], key, value, order=order_of(key))
        assert load_text(text, "t")[0] == wanted
    assert comments(text) == before


@pytest.mark.parametrize("name", TEXTS)
@settings(max_examples=15, deadline=None)
@given(key=st.sampled_from(FIELDS), value=values)
def test_what_was_added_and_removed_again_leaves_the_text_as_it_was(
    name: str, key: tuple[str, ...], value: Any
) -> None:
    text = TEXTS[name]
    if key[0] in load_text(text, "t")[0]:
        return
    added = with_value(text, parse_text(text, "t")[2], key, value, order=order_of(key))
    removed = without(added, parse_text(added, "t")[2], key)
    assert removed == text if text.endswith("\n") or not text else removed.rstrip("\n") == text.rstrip("\n")


@pytest.mark.parametrize("name", TEXTS)
@settings(max_examples=15, deadline=None)
@given(keys=st.lists(st.sampled_from(FIELDS), min_size=1, max_size=6))
def test_what_was_removed_is_gone_and_every_comment_stays(name: str, keys: list[tuple[str, ...]]) -> None:
    text = TEXTS[name]
    before = comments(text)
    for key in keys:
        wanted = load_text(text, "t")[0]
        group = wanted if len(key) == 1 else wanted.get(key[0])
        if isinstance(group, dict) and key[-1] in group:
            del group[key[-1]]
            if len(key) == 2 and not group:
                del wanted[key[0]]
        text = without(text, parse_text(text, "t")[2], key)
        assert load_text(text, "t")[0] == wanted
    assert comments(text) == before


@example(value=["a\n"], flow=False, quotes="")
@settings(max_examples=150, deadline=None)
@given(value=values, flow=st.booleans(), quotes=st.sampled_from(["", "'", '"']))
def test_any_value_fits_on_a_line(value: Any, flow: bool, quotes: str) -> None:
    written = scalar_text(value, flow=flow, quotes=quotes)
    assert "\n" not in written
    assert load_text(f"k: [{written}]\n" if flow else f"k: {written}\n", "t")[0]["k"] == ([value] if flow else value)


def test_a_comment_keeps_its_column() -> None:
    text = SAMPLES["demo"]
    edited = with_value(text, parse_text(text, "t")[2], ("epochs",), 20)
    assert edited == text.replace("epochs: 150                #", "epochs: 20                 #")


def test_numbers_stay_as_they_were_typed() -> None:
    text = "learning_rate: 1e-3\n"
    assert with_value(text, parse_text(text, "t")[2], ("learning_rate",), 5e-5, "5e-5") == "learning_rate: 5e-5\n"


def test_new_keys_stand_where_the_schema_has_them() -> None:
    text = "model: tiny  # m\nepochs: 2\nloss:\n  lambda_cos: 0.2\n"
    edited = with_value(text, parse_text(text, "t")[2], ("trigger",), "ohwx", order=order_of(("trigger",)))
    assert edited == "model: tiny  # m\ntrigger: ohwx\nepochs: 2\nloss:\n  lambda_cos: 0.2\n"
    edited = with_value(
        text, parse_text(text, "t")[2], ("lora", "refiners"), True, order=order_of(("lora", "refiners"))
    )
    assert edited == f"{text}lora:\n  refiners: true\n"


def test_a_group_that_is_a_value_is_not_edited_blindly() -> None:
    text = "model: tiny\nloss: 3\n"
    with pytest.raises(EditError, match=r"loss is not a group of keys here \(line 2\)"):
        with_value(text, parse_text(text, "t")[2], ("loss", "lambda_cos"), 0.2)

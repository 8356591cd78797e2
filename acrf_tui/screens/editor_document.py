"""The config as text, and what it means: the text is the truth, the form changes it. Nothing here draws.

Reading parses YAML and checks the schema (milliseconds to, for the largest file, seconds): not for the UI thread.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from acrf_engine.config import problems_of
from acrf_engine.config_problems import Problem
from acrf_engine.yaml_edit import with_value, without, written_as
from acrf_engine.yaml_source import ConfigError, KeyPath, parse_text
from acrf_tui.screens.editor_fields import FormField, FormGroup, Key, value_text


@dataclass(frozen=True)
class Reading:
    """What a text means. `error` is set where it is no YAML that a config could be; then there are no values."""

    text: str = ""
    values: dict[str, Any] = dataclasses.field(default_factory=dict)
    lines: dict[KeyPath, int] = dataclasses.field(default_factory=dict)
    root: yaml.MappingNode | None = None
    problems: tuple[Problem, ...] = ()
    error: str = ""
    error_line: int | None = None

    @property
    def sound(self) -> bool:
        """Whether this is a config that could run."""
        return not self.error and not self.problems

    def messages(self) -> list[str]:
        """All that is wrong, in the words of `load_config`."""
        return [self.error] if self.error else [problem.message for problem in self.problems]


def read(text: str, name: str) -> Reading:
    """Parse and check a text; `name` stands for the file in messages."""
    try:
        values, lines, root = parse_text(text, name)
    except ConfigError as error:
        found = re.match(re.escape(name) + r":(\d+): ", str(error))
        return Reading(text, error=str(error), error_line=int(found.group(1)) if found else None)
    return Reading(text, values, lines, root, tuple(problems_of(values, lines, name)))


@dataclass(frozen=True, slots=True)
class FieldState:
    """A field as the form shows it. `shown` and `default` are one line each."""

    value: Any
    shown: str
    default: str
    present: bool
    changed: bool
    differs: bool
    editable: bool
    reason: str = ""


def lookup(values: dict[str, Any], key: Key) -> tuple[bool, Any]:
    """Whether the key is there, and its value."""
    found: Any = values
    for name in key:
        if not isinstance(found, dict) or name not in found:
            return False, None
        found = found[name]
    return True, found


def effective(reading: Reading, field: FormField) -> Any:
    """The value in the text, or the default."""
    present, value = lookup(reading.values, field.key)
    return value if present else field.default


def states_of(groups: Sequence[FormGroup], now: Reading, before: Reading) -> dict[Key, FieldState]:
    """Every field's state; `before` is the file as it was read or saved last."""
    fields = [field for group in groups for field in group.fields]
    reasons = reasons_by_field(fields, now.problems)
    return {field.key: state_of(field, now, before, reasons.get(field.key, "")) for field in fields}


def state_of(field: FormField, now: Reading, before: Reading, reason: str = "") -> FieldState:
    """A field's state; `before` is the file."""
    present, _ = lookup(now.values, field.key)
    value = effective(now, field)
    written = written_as(now.text, now.root, field.key) if isinstance(value, int | float) and present else ""
    return FieldState(
        value,
        written or value_text(value),
        value_text(field.default),
        present,
        not same(value, effective(before, field)),
        not same(value, field.default),
        field.fits(value),
        reason,
    )


def reasons_by_field(fields: Sequence[FormField], problems: Sequence[Problem]) -> dict[Key, str]:
    """What is wrong with each field, without file and key; a problem of several is told at the one it names first."""
    found: dict[Key, str] = {}
    for problem in problems:
        for field in fields:
            if problem.key[: len(field.key)] == field.key or (
                len(problem.key) < len(field.key) and problem.reason.startswith(f"{field.dotted} ")
            ):
                found[field.key] = f"{found[field.key]}; {problem.reason}" if field.key in found else problem.reason
                break
    return found


def next_problem(fields: Sequence[FormField], problems: Sequence[Problem], here: Key) -> Key | int | None:
    """Where to look after the field `here`: the next wrong field, around the end; else a line of the text, or None."""
    wrong = reasons_by_field(fields, problems)
    order = [field.key for field in fields if field.key in wrong]
    if not order:
        return next((problem.line for problem in problems if problem.line), None)
    following = order[order.index(here) + 1 :] if here in order else order
    return (following or order)[0]


def reason_of_group(group: FormGroup, problems: Sequence[Problem]) -> str:
    """What is wrong with a group as a whole."""
    told = reasons_by_field(group.fields, problems).values()
    wrong = (problem.reason for problem in problems if group.key and problem.key == group.key)
    return "; ".join(reason for reason in wrong if not any(reason in one for one in told))


def same(one: Any, other: Any) -> bool:
    """Whether two values mean the same to the schema: 16 is 16.0, but true is not 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other) or (one != one and other != other)


def with_field(reading: Reading, field: FormField, value: Any, written: str = "") -> str:
    """The text with the field set. Raises EditError."""
    return with_value(reading.text, reading.root, field.key, value, written, field.order)


def at_default(reading: Reading, before: Reading, field: FormField) -> str:
    """The text with the field at its default.

    A key that the file had stays in it: its comment belongs to it. Raises EditError.
    """
    if not lookup(reading.values, field.key)[0]:
        return reading.text
    if lookup(before.values, field.key)[0]:
        written = value_text(field.default) if isinstance(field.default, float) else ""
        return with_field(reading, field, field.default, written)
    return without(reading.text, reading.root, field.key)


def as_in_file(reading: Reading, before: Reading, field: FormField) -> str:
    """The text with the field as the file has it. Raises EditError."""
    present, value = lookup(before.values, field.key)
    if present:
        return with_field(reading, field, value, written_as(before.text, before.root, field.key))
    return without(reading.text, reading.root, field.key)


def means(values: dict[str, Any], field: FormField, value: Any) -> dict[str, Any]:
    """`values` with the field set: what the edited text must load as."""
    wanted = copy.deepcopy(values)
    target = wanted
    for name in field.key[:-1]:
        if target.get(name) is None:
            target[name] = {}
        target = target[name]
    target[field.key[-1]] = value
    return wanted


def equal_values(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two files' values are the same in all but order."""
    return json.dumps(one, sort_keys=True, default=repr) == json.dumps(other, sort_keys=True, default=repr)

"""The fields of the form, made from the schema; what was typed as a value; a value as text. Nothing here draws."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from acrf_engine.config import RunConfig
from acrf_engine.config_reference import allowed_values
from acrf_engine.yaml_source import ConfigError, parse_value

Key = tuple[str, ...]
TOP = "run"
NUMBERS = frozenset({"integer", "number"})


@dataclass(frozen=True, slots=True)
class FormField:
    """One setting. `types` are those of its JSON schema; `order` the names beside each part of the key."""

    key: Key
    help: str
    default: Any
    allowed: str
    types: frozenset[str]
    choices: tuple[str, ...]
    of_texts: bool
    folder: bool
    order: tuple[tuple[str, ...], ...]

    @property
    def dotted(self) -> str:
        return ".".join(self.key)

    @property
    def kind(self) -> str:
        """How it is edited: switch, choice, texts (one a line), folder or line."""
        if self.types == {"boolean"}:
            return "switch"
        if self.choices:
            return "choice"
        if self.of_texts and self.types <= {"array", "null"}:
            return "texts"
        return "folder" if self.folder else "line"

    def fits(self, value: Any) -> bool:
        """Whether the form can edit this value; else only the YAML can."""
        if isinstance(value, dict):
            return False
        if isinstance(value, list):
            return self.kind == "texts" and all(isinstance(item, str) and "\n" not in item for item in value)
        return self.kind != "texts" or value is None


@dataclass(frozen=True, slots=True)
class FormGroup:
    """Settings that belong together; `key` is empty for those at the top level."""

    key: Key
    help: str
    fields: tuple[FormField, ...]

    @property
    def title(self) -> str:
        return ".".join(self.key) or TOP


def form_of(model: type[BaseModel] = RunConfig) -> list[FormGroup]:
    """The groups of the schema, in its order."""
    return list(_groups(model, (), (), model().model_dump(mode="json")))


def _groups(
    model: type[BaseModel], key: Key, order: tuple[tuple[str, ...], ...], defaults: dict[str, Any]
) -> Iterator[FormGroup]:
    schema = model.model_json_schema()["properties"]
    order = (*order, tuple(model.model_fields))
    fields: list[FormField] = []
    inner: list[FormGroup] = []
    for name, info in model.model_fields.items():
        kind = info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            inner += _groups(kind, (*key, name), order, defaults[name])
        else:
            fields.append(_field((*key, name), schema[name], info.description or "", defaults[name], order))
    if fields:
        yield FormGroup(key, _plain(model.__doc__ or ""), tuple(fields))
    yield from inner


def _field(key: Key, schema: dict[str, Any], help: str, default: Any, order: tuple[tuple[str, ...], ...]) -> FormField:
    branches = schema.get("anyOf", [schema])
    choices: list[str] = []
    types: set[str] = set()
    for branch in branches:
        fixed = branch.get("enum", [branch["const"]] if "const" in branch else [])
        choices += map(str, fixed)
        if not fixed:
            types.add(branch.get("type", "object"))
    of_texts = any(branch.get("items", {}).get("type") == "string" for branch in branches)
    return FormField(
        key, _plain(help), default, _plain(allowed_values(schema)), frozenset(types), tuple(choices), of_texts,
        schema.get("format") == "folder", order,
    )  # fmt: skip


def _plain(text: str) -> str:
    return " ".join(text.replace("`", "").split())


def value_of_typed(field: FormField, typed: str) -> tuple[Any, str]:
    """The value that was typed, and how to write it where that is not the plain way. What fits no type stays text."""
    text = typed.strip()
    if not text and "null" in field.types:
        return None, ""
    if field.types & NUMBERS:
        try:
            value = parse_value(text) if text else ""
        except ConfigError:
            value = ""
        if isinstance(value, int | float) and not isinstance(value, bool):
            return value, text
    return (text if field.types & NUMBERS or field.choices else typed), ""


def value_text(value: Any) -> str:
    """A value on one line, as one would type it."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case float():
            return number_text(value)
        case list():
            return f"{len(value)} entr{'y' if len(value) == 1 else 'ies'}" if value else ""
        case dict():
            return f"{len(value)} keys"
        case _:
            return str(value)


def number_text(value: float) -> str:
    """A float the short way: 1e-4, 0.02, 16."""
    if value and abs(value) < 1e-3:
        mantissa, _, exponent = f"{value:e}".partition("e")
        short = f"{float(mantissa):g}e{int(exponent)}"
        return short if float(short) == value else repr(value)
    short = f"{value:g}"
    return short if float(short) == value else repr(value)

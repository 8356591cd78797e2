"""docs/config.md, made from the schema: `python -m acrf_engine.config_reference > docs/config.md`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from acrf_engine.config import DatasetSource, Group, RunConfig

INTRODUCTION = """# The config

A run is described by one YAML file. Every key has a default, so a file holds only what differs. Unknown keys, wrong
types, values out of range and settings that would have no effect are errors that name the file, the line and the key.
`acrf-tui check FILE` tells what a config will do. Any key can be overridden for one run with `--set group.key=VALUE`.

Relative paths are resolved against the current folder; the `config.yaml` in the run folder holds absolute ones, so
`acrf-tui train runs/NAME/config.yaml` repeats a run. This page is made from the schema
(`python -m acrf_engine.config_reference`).
"""


def reference() -> str:
    """The page, as Markdown."""
    parts = [INTRODUCTION, *_table("Top level", RunConfig)]
    for name, field in RunConfig.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Group):
            parts += _table(f"`{name}:`", field.annotation)
    parts += _table("Entries of a `dataset:` list", DatasetSource)
    return "\n".join(parts).rstrip() + "\n"


def _table(title: str, model: type[BaseModel]) -> Iterator[str]:
    yield f"## {title}\n"
    yield f"{' '.join((model.__doc__ or '').split())}\n"
    yield "| key | default | what it does | values |"
    yield "|---|---|---|---|"
    schema = model.model_json_schema()["properties"]
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Group):
            continue
        description = " ".join((field.description or "").split())
        yield f"| `{name}` | {default_text(field)} | {description} | {allowed_values(schema[name])} |"
    yield ""


def default_text(field: FieldInfo) -> str:
    """The default as the page writes it."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None:
        return "none"
    return "empty" if value in ("", []) else f"`{value}`"


def allowed_values(schema: dict[str, Any]) -> str:
    """What a field of this JSON schema takes, in words: `whole number from 1 to 16`."""
    if "anyOf" in schema:
        return " or ".join(text for item in schema["anyOf"] if (text := allowed_values(item)))
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    names = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false", "null": ""}
    text = names.get(schema.get("type", ""), "list")
    bounds = [
        f"{word} {schema[key]:,}" if isinstance(schema[key], int) else f"{word} {schema[key]:g}"
        for key, word in (
            ("minimum", "from"),
            ("exclusiveMinimum", "above"),
            ("maximum", "to"),
            ("exclusiveMaximum", "below"),
            ("multipleOf", "multiple of"),
        )
        if key in schema and schema[key] < 2**62
    ]
    return " ".join([text, *bounds]).strip()


if __name__ == "__main__":
    print(reference(), end="")

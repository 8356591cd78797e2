"""What is wrong with a config, in words: each problem with its key, its line and what to do."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from acrf_engine.yaml_source import KeyPath


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. `message` is the whole of it: FILE:LINE: KEY: `reason`."""

    key: KeyPath
    line: int | None
    reason: str
    message: str


def explain(
    error: ValidationError, model: type[BaseModel], lines: dict[KeyPath, int], name: str, changed: set[str]
) -> list[Problem]:
    """The problems of a config, in the order of their lines; `changed` are the keys that --set gave."""
    reasons: dict[KeyPath, list[str]] = {}
    for problem in error.errors(include_url=False):
        *above, last = problem["loc"] or ("",)
        known = (last,) if problem["type"] == "extra_forbidden" or _is_key(last) else ()
        keys = tuple(part for part in above if _is_key(part)) + known
        keys = tuple(part for part in keys if part != "")
        reasons.setdefault(keys, []).append(_reason(problem, keys, model))
    problems = []
    for keys, texts in sorted(reasons.items(), key=lambda item: line_of(item[0], lines) or 0):
        if any(len(other) > len(keys) and other[: len(keys)] == keys for other in reasons):
            continue  # the other branch of a union: the deeper one says what is wrong
        dotted = ".".join(map(str, keys))
        line = line_of(keys, lines)
        where = "--set" if dotted in changed else f"{name}:{line}" if line else name
        reason = ", or ".join(dict.fromkeys(texts))
        problems.append(Problem(keys, line, reason, f"{where}: {dotted + ': ' if dotted else ''}{reason}"))
    return problems[:20]


def line_of(keys: KeyPath, lines: dict[KeyPath, int]) -> int | None:
    """The line of a key, or of the nearest group above it that is in the file."""
    return next((lines[keys[:end]] for end in range(len(keys), 0, -1) if keys[:end] in lines), None)


def _is_key(part: str | int) -> bool:
    # pydantic puts the union member's name into the location: str, list[...], constrained-int, literal[...]
    return isinstance(part, int) or (
        not any(mark in part for mark in ("[", "-", "constrained")) and part not in ("str", "int")
    )


def _reason(problem: Any, keys: KeyPath, model: type[BaseModel]) -> str:
    kind, given = problem["type"], problem.get("input")
    shown = repr(given)
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    if kind == "extra_forbidden":
        spelled = str(keys[-1]).replace("-", "_")
        close = difflib.get_close_matches(spelled, _names_at(keys[:-1], model), n=1, cutoff=0.6)
        return f"unknown key (did you mean {close[0]}?)" if close else "unknown key (remove it)"
    if kind == "value_error":
        return str(problem["ctx"]["error"])
    if kind in ("int_type", "int_parsing", "float_type", "bool_type", "string_type", "int_from_float"):
        wanted = {"i": "a whole number", "f": "a number", "b": "true or false", "s": "text"}[kind[0]]
        return f"expected {wanted}, got {shown}"
    text = problem["msg"].removeprefix("Input ")
    return f"{text[0].lower()}{text[1:]}, got {shown}"


def _names_at(path: KeyPath, model: type[BaseModel]) -> list[str]:
    found: type[BaseModel] = model
    for part in path:
        if isinstance(part, str):
            annotation = found.model_fields[part].annotation if part in found.model_fields else None
            found = _model_in(annotation) or found
    return list(found.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The group that a field is, or holds a list of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for inner in get_args(annotation) if (found := _model_in(inner))), None)

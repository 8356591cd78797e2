"""The translated config as a file with comments, and the list of what was not taken over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from acrf_engine.translation.ledger import Ledger, nested
from acrf_engine.yaml_source import dump_text

WIDTH = 34
SHOWN = 60
OFF: tuple[Any, ...] = (False, 0, "NONE", "OFF", "NEVER", [], {})
LEADING = ("model", "dataset", "trigger", "epochs", "steps")


def config_text(ledger: Ledger, source: Path) -> str:
    """Our config as YAML, each key with the key it comes from, and at the end what was left out."""
    lines = [
        f"# From {_plain(source.name)}, a config of {ledger.trainer}.",
        "# Whatever is not here has this trainer's default; `acrf-tui check FILE` says what it will do.",
    ]
    order = {key: index for index, key in enumerate(LEADING)}
    values = nested({key: ledger.ours[key] for key in sorted(ledger.ours, key=lambda k: ("." in k, order.get(k, 99)))})
    for key, value in values.items():
        if isinstance(value, dict):
            lines += ["", f"{key}:"]
            for name, item in value.items():
                lines += _entry(name, item, ledger.origin[f"{key}.{name}"], "  ")
        else:
            lines += _entry(key, value, ledger.origin[key], "")
    if ledger.notes:
        lines += ["", "# To know:"] + [f"#   {_plain(note)}" for note in ledger.notes]
    if ledger.as_here:
        lines += ["", f"# So here anyway: {_plain(', '.join(ledger.as_here))}"]
    if ledger.left_out:
        lines += ["", f"# Not taken over ({len(ledger.left_out)}):"] + [
            f"#   {line}" for line in left_out_lines(ledger)
        ]
    return "\n".join(lines) + "\n"


def left_out_lines(ledger: Ledger) -> list[str]:
    """`key = value: why`, one a line; what was off in their config comes last."""
    items = sorted(ledger.left_out, key=lambda item: item.value in OFF)
    return [f"{_plain(item.key)} = {_shown(item.value)}: {_plain(item.why)}" for item in items]


def _entry(name: str, value: Any, origin: str, indent: str) -> list[str]:
    text = [f"{indent}{line}" for line in dump_text({name: value}).rstrip("\n").splitlines()]
    origin = _plain(origin if len(origin) <= SHOWN else origin[: SHOWN - 3] + "...")
    return [f"{text[0]:{WIDTH}}  # {origin}", *text[1:]]


def _shown(value: Any) -> str:
    text = _plain(json.dumps(value, ensure_ascii=False, default=str))
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."


def _plain(text: str) -> str:
    """Text of others in one line, without control characters."""
    return "".join(character if character.isprintable() else " " for character in text)

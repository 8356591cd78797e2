"""The account of a translation: every key of the other trainer is taken over, or listed with the reason why not."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from acrf_engine.config import build_config
from acrf_engine.yaml_source import ConfigError

Z_IMAGE = "Tongyi-MAI/Z-Image-Turbo"
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
NO_COUNTERPART = "no counterpart here"


@dataclass(frozen=True)
class LeftOut:
    """A key of the other config that is not taken over."""

    key: str
    value: Any
    why: str


@dataclass
class Ledger:
    """One config under translation.

    `theirs` is the other config, flat, by dotted key; what is taken leaves it. `ours` is our config, flat too, and
    `origin` says where each of its keys comes from.
    """

    trainer: str
    theirs: dict[str, Any]
    ours: dict[str, Any] = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    as_here: list[str] = field(default_factory=list)
    """Keys that say what is so here anyway."""

    def has(self, key: str) -> bool:
        return key in self.theirs

    def peek(self, key: str, otherwise: Any = None) -> Any:
        return number(self.theirs.get(key, otherwise))

    def take(self, key: str, otherwise: Any = None) -> Any:
        """Their value of a key that says what is so here anyway."""
        if key in self.theirs:
            self.as_here.append(key)
        return number(self.theirs.pop(key, otherwise))

    def put(self, ours: str, value: Any, *theirs: str, why: str = "") -> bool:
        """Take `value` over as our key `ours`; `theirs` are the keys that it comes from, and leave their config.

        A value that our schema refuses is listed with the refusal. Returns whether it was accepted.
        """
        value = _whole(value)
        refusal = refused(ours, value)
        if refusal:
            for key in theirs:
                self.leave(key, refusal)
            return False
        for key in theirs:
            self.theirs.pop(key, None)
        self.ours[ours] = value
        self.origin[ours] = why or ", ".join(theirs)
        return True

    def move(self, theirs: str, ours: str) -> None:
        """Take one key over as it is, where it is there."""
        if self.has(theirs) and self.peek(theirs) is not None:
            self.put(ours, self.peek(theirs), theirs)

    def leave(self, key: str, why: str) -> None:
        """List a key that is not taken over, where it is there."""
        if self.has(key):
            self.left_out.append(LeftOut(key, self.theirs.pop(key), why))

    def leave_all(self, pattern: str, why: str) -> None:
        """List every key that matches the pattern as a whole."""
        for key in [key for key in self.theirs if re.fullmatch(pattern, key)]:
            self.leave(key, why)

    def default(self, ours: str, value: Any) -> None:
        """What the other trainer does where its config says nothing."""
        if ours not in self.ours:
            self.put(ours, value, why=f"{self.trainer}'s default")

    def close(self, reasons: Iterable[tuple[str, str]]) -> None:
        """List whatever is left, with the first of the `reasons` (pattern, why) that fits, and make `ours` a config."""
        for key in list(self.theirs):
            name = key.rpartition(".")[2]
            why = next((why for pattern, why in reasons if re.fullmatch(pattern, name)), NO_COUNTERPART)
            self.leave(key, why)
        if "model" not in self.ours:
            self.put("model", Z_IMAGE, why="the model of this trainer; change it to your folder")
        self._mend()

    def _mend(self) -> None:
        """Leave out what does not go with the rest, until the whole is a config."""
        while (refusal := _refusal(nested(self.ours))) is not None:
            keys = [key for key in reversed(self.ours) if key not in ("model", "dataset")]
            bad = next((key for key in keys if _refusal(nested(_without(self.ours, key))) is None), keys[0])
            self.left_out.append(LeftOut(self.origin[bad], self.ours.pop(bad), refusal))


def number(value: Any) -> Any:
    """A number that is written as text (YAML reads 1e-4 so), as a number."""
    if isinstance(value, str) and NUMBER.fullmatch(value.strip()):
        return float(value) if re.search(r"[.eE]", value) else int(value)
    return value


def flat(values: Any, prefix: str = "") -> dict[str, Any]:
    """A nested config by dotted key; lists of plain values stay lists."""
    found: dict[str, Any] = {}
    items = values.items() if isinstance(values, dict) else enumerate(values)
    for key, value in items:
        name = f"{prefix}{key}"
        holds_groups = isinstance(value, list) and any(isinstance(item, dict) for item in value)
        if isinstance(value, dict) or holds_groups:
            found.update(flat(value, f"{name}."))
        else:
            found[name] = value
    return found


def nested(values: dict[str, Any]) -> dict[str, Any]:
    """The inverse for our own keys, which are two deep at most."""
    groups: dict[str, Any] = {}
    for key, value in values.items():
        group, _, name = key.rpartition(".")
        (groups.setdefault(group, {}) if group else groups)[name] = value
    return groups


def refused(key: str, value: Any) -> str:
    """Why our schema refuses this value, by itself; empty where it takes it."""
    return _refusal(nested({key: value})) or "" if not _needs_others(key) else ""


def _needs_others(key: str) -> bool:
    """Keys that are refused alone, because they only have an effect beside others."""
    return key in (
        "schedule.cycles", "schedule.min_lr", "loss.weighting", "anchors.jitter", "schedule.power",
        "logging.project", "logging.every", "logging.run_name", "optimizer",
        "regularisation.weight", "regularisation.default_caption",
    )  # fmt: skip


def _refusal(values: dict[str, Any]) -> str | None:
    try:
        build_config(values)
    except ConfigError as error:
        return str(error).splitlines()[0].removeprefix("config: ")
    return None


def _without(values: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name != key}


def _whole(value: Any) -> Any:
    """2.0 where a whole number is meant is 2: some write every number so."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value

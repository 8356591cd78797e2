"""Keys of the user's choice: every binding has an id, and keys.yaml gives ids other keys."""

from __future__ import annotations

import importlib
import os
import pkgutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from textual.app import App
from textual.binding import Binding
from textual.dom import DOMNode
from textual.screen import Screen

from acrf_tui.key_names import TAKEN, normal_key

PACKAGES = ("acrf_tui.screens", "acrf_tui.panels", "acrf_tui.charts")
DASHBOARD_PARTS = ("acrf_tui.panels", "acrf_tui.charts")


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """One binding of one class. `keys` are its default keys in order; `place` is where it works."""

    id: str
    keys: tuple[str, ...]
    description: str
    owner: type[DOMNode]

    @property
    def place(self) -> str:
        return family(self.owner)


def family(owner: type[DOMNode]) -> str:
    """The part of the app that a class belongs to: its classes may be on the screen at once."""
    if issubclass(owner, App):
        return "everywhere"
    if owner.__module__.startswith(DASHBOARD_PARTS):
        return "dashboard"
    return owner.__module__.rpartition(".")[2].partition("_")[0]


def all_entries() -> list[KeyEntry]:
    """Every binding with an id of every class of the app, whether or not it is on the screen. Imports all screens."""
    from acrf_tui.app import AcrfApp

    for package in PACKAGES:
        for module in pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}."):
            importlib.import_module(module.name)
    classes: list[type[DOMNode]] = [
        AcrfApp,
        *(kind for kind in _subclasses(DOMNode) if kind.__module__.startswith(PACKAGES)),
    ]
    found: list[KeyEntry] = []
    for owner in classes:
        collected: dict[str, KeyEntry] = {}
        for binding in Binding.make_bindings(owner.__dict__.get("BINDINGS", ())):
            if not binding.id:
                continue
            before = collected.get(binding.id)
            keys = (*before.keys, binding.key) if before else (binding.key,)
            text = binding.tooltip or binding.description
            collected[binding.id] = KeyEntry(binding.id, tuple(dict.fromkeys(keys)), text, owner)
        found += collected.values()
    return sorted(found, key=lambda entry: (entry.place != "dashboard", entry.place, entry.id))


def _subclasses(kind: type[DOMNode]) -> list[type[DOMNode]]:
    found: dict[type[DOMNode], None] = {}
    for child in kind.__subclasses__():
        found[child] = None
        found.update(dict.fromkeys(_subclasses(child)))
    return list(found)


def live_together(one: KeyEntry, other: KeyEntry) -> bool:
    """Whether a key could mean both at some moment."""
    if one.owner is other.owner or "everywhere" in (one.place, other.place):
        return True
    both_screens = issubclass(one.owner, Screen) and issubclass(other.owner, Screen)
    return one.place == other.place and not both_screens


def read_keys(file: Path) -> tuple[dict[str, str], list[str]]:
    """The keymap of a file (id -> keys joined by commas, for App.set_keymap) and all that is wrong with line and id.

    A line with a mistake or a conflict is left out; the others hold. Without a file nothing is loaded.
    """
    if not os.path.lexists(file):
        return {}, []
    from acrf_engine.yaml_source import ConfigError, load_file

    try:
        body, lines = load_file(file)
    except ConfigError as error:
        return {}, [str(error)]
    where = {str(key): f"{file}:{lines.get((str(key),), 1)}: {key}" for key in body}
    return checked_keys({str(key): value for key, value in body.items()}, where, all_entries())


def checked_keys(
    wanted: Mapping[str, object], where: Mapping[str, str], entries: Iterable[KeyEntry]
) -> tuple[dict[str, str], list[str]]:
    """The part of `wanted` that holds, and what is wrong with the rest; `where` names an id's place in a message."""
    entries = list(entries)
    known = {entry.id for entry in entries}
    wrong: list[str] = []
    chosen: dict[str, tuple[str, ...]] = {}
    for id, value in wanted.items():
        if id not in known:
            close = get_close_matches(id, known, n=1)
            hint = f"did you mean {close[0]}?" if close else "`acrf-tui keys` lists them"
            wrong.append(f"{where[id]}: there is nothing of that id ({hint})")
            continue
        try:
            keys = _keys_of(value)
            usual = {key for entry in entries if entry.id == id for key in entry.keys}
            for key in keys:
                if key in TAKEN and key not in usual:
                    raise ValueError(f"{key} {TAKEN[key]} (choose another)")
            chosen[id] = keys
        except ValueError as problem:
            wrong.append(f"{where[id]}: {problem}")
    while conflict := _conflict(chosen, entries):
        id, key, other = conflict
        wrong.append(f"{where[id]}: {key} is the key of {other} already (give {other} another key as well)")
        del chosen[id]
    return _with_neighbours(chosen, entries), wrong


def _keys_of(value: object) -> tuple[str, ...]:
    if isinstance(value, bool) or value is None:
        raise ValueError(f"{value!r} is no key (write it in quotes)")
    parts: list[object] = [value]
    if isinstance(value, list):
        parts = value
    elif isinstance(value, str) and len(value) > 1:
        parts = [part.strip() for part in value.split(",")]
    if not parts or any(isinstance(part, bool | dict | list | None) or str(part) == "" for part in parts):
        raise ValueError("must be a key, or several in brackets, such as [p, f5]")
    return tuple(dict.fromkeys(normal_key(str(part)) for part in parts))


def _conflict(chosen: Mapping[str, tuple[str, ...]], entries: list[KeyEntry]) -> tuple[str, str, str] | None:
    """A chosen id, the key, and the other id that has it too. Ids that share a key by default take turns, as before."""
    for one in entries:
        for other in entries:
            if one.id not in chosen or one.id == other.id or not live_together(one, other):
                continue
            if set(one.keys) & set(other.keys) and one.owner is other.owner:
                continue
            for key in chosen[one.id]:
                shared = key in one.keys and key in other.keys
                if key in chosen.get(other.id, other.keys) and not shared:
                    return one.id, key, other.id
    return None


def _with_neighbours(chosen: Mapping[str, tuple[str, ...]], entries: list[KeyEntry]) -> dict[str, str]:
    """Also ids that share a default key with a chosen one: Textual drops all bindings of the key that becomes free."""
    whole = dict(chosen)
    for one in entries:
        if one.id in chosen:
            for other in entries:
                if other.owner is one.owner and other.id not in chosen and set(one.keys) & set(other.keys):
                    whole[other.id] = other.keys
    return {id: ",".join(keys) for id, keys in whole.items()}

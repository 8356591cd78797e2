"""YAML as a config needs it: safe, YAML 1.2 numbers and booleans, no duplicate keys, no aliases, lines remembered."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

MAX_CONFIG_BYTES = 256 * 1024
KeyPath = tuple[str | int, ...]


class ConfigError(Exception):
    """A config cannot be used. `str()` is the whole message: FILE:LINE: KEY: what is wrong (what to do)."""


class _Loader(yaml.SafeLoader):
    """SafeLoader with the YAML 1.2 core schema: 1e-4 is a number, `no` a word, 010 ten."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012  (PyYAML's own protocol)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9]+$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$|^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)


def _construct_int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    return int(loader.construct_scalar(node), 10)


_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)


class _Dumper(yaml.SafeDumper):
    """SafeDumper that also quotes what only YAML 1.2 reads as a number, such as 1e-4, and keeps text on one line."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    plain = text.isprintable() and _resolve(yaml.ScalarNode, text, (True, False)) == "tag:yaml.org,2002:str"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')


_resolve: Callable[[type, str, tuple[bool, bool]], str] = _Loader("").resolve
_Dumper.add_representer(str, _represent_text)


def dump_text(values: dict[str, Any]) -> str:
    """`values` as YAML in their own order; `load_text` gives them back."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)


def load_file(path: Path) -> tuple[dict[str, Any], dict[KeyPath, int]]:
    """The mapping in a YAML file and the line (from 1) of every key path. Raises ConfigError."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file (`acrf-tui paths` shows where sample configs are)") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    if len(raw) > MAX_CONFIG_BYTES:
        raise ConfigError(f"{path}: {len(raw):,} bytes is too long for a config (at most {MAX_CONFIG_BYTES:,})")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text at byte {error.start} (save the file as UTF-8)") from None
    return load_text(text, str(path))


def load_text(text: str, name: str) -> tuple[dict[str, Any], dict[KeyPath, int]]:
    """Like `load_file`, of text; `name` stands for the file in messages."""
    values, lines, _ = parse_text(text, name)
    return values, lines


def parse_text(text: str, name: str) -> tuple[dict[str, Any], dict[KeyPath, int], yaml.MappingNode | None]:
    """Like `load_text`, with the mapping whose marks say where in the text each key and value stands."""
    try:
        for token in yaml.scan(text, Loader=yaml.SafeLoader):
            if isinstance(token, (yaml.AnchorToken, yaml.AliasToken)):
                line = token.start_mark.line + 1
                raise ConfigError(f"{name}:{line}: anchors and aliases (& and *) are not supported (write it out)")
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigError(f"{name}{line}: not valid YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigError(f"{name}: not valid YAML: {str(error)[:200]}") from None
    if node is None or (isinstance(node, yaml.ScalarNode) and not text[node.start_mark.index : node.end_mark.index]):
        return {}, {}, None
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{name}:{node.start_mark.line + 1}: expected `key: value` lines")
    lines: dict[KeyPath, int] = {}
    _walk(node, (), lines, name)
    loader = _Loader("")
    try:
        return loader.construct_document(node), lines, node
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise ConfigError(f"{name}:{mark.line + 1 if mark else 1}: not valid YAML: {error.problem}") from None
    except (ValueError, KeyError, RecursionError) as error:
        raise ConfigError(f"{name}: a value is not what its tag says, or too long ({str(error)[:120]})") from None
    finally:
        loader.dispose()


def scalar_text(value: Any, *, flow: bool = False, quotes: str = "") -> str:
    """One line of YAML that loads as `value`; `flow` inside brackets, `quotes` where text had some before."""
    style = None
    if isinstance(value, str):
        style = (quotes or None) if value.isprintable() else '"'
    if flow or isinstance(value, list | dict):
        text = yaml.dump([value], Dumper=_Dumper, default_flow_style=True, allow_unicode=True, width=10**9)
        if style is None or isinstance(value, list | dict):
            return text.strip()[1:-1]
    if style is not None:
        return yaml.dump(value, Dumper=yaml.SafeDumper, default_style=style, allow_unicode=True, width=10**9).strip()
    return dump_text({"k": value}).strip().removeprefix("k:").strip() or "null"


def parse_value(text: str) -> Any:
    """The value of `--set key=VALUE`, read as YAML would read it."""
    if "\n" in text or "\r" in text:
        raise ConfigError(f"--set: {text.splitlines()[0][:60]!r} ...: a value is one line (give --set once per key)")
    values, _ = load_text(f"value: {text}" if text.strip() else "value:", "--set")
    return values["value"]


def _walk(node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int], name: str) -> None:
    if isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            key = str(key_node.value)
            where = (*path, key)
            line = key_node.start_mark.line + 1
            if where in lines:
                dotted = ".".join(map(str, where))
                raise ConfigError(f"{name}:{line}: {dotted}: given twice, first in line {lines[where]} (remove one)")
            lines[where] = line
            _walk(value_node, where, lines, name)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            lines[(*path, index)] = item.start_mark.line + 1
            _walk(item, (*path, index), lines, name)

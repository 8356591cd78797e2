"""YAML text changed in place: one value is set or removed; comments, order and blank lines stay as they were.

The marks of a parsed text (`yaml_source.parse_text`) say where each value stands. Nothing here checks the result: the
caller loads it and compares, since a file may be laid out in ways that a cut in its text does not reach.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import yaml

from acrf_engine.yaml_source import scalar_text

Entry = tuple[yaml.Node, yaml.Node]
INDENT = 2


class EditError(Exception):
    """The text is laid out in a way that cannot be changed here. `str()` says why."""


def with_value(
    text: str,
    root: yaml.MappingNode | None,
    key: Sequence[str],
    value: Any,
    written: str = "",
    order: Sequence[Sequence[str]] = (),
) -> str:
    """`text` with `key` set to `value`, written as `written` where given (`1e-4`, not `0.0001`).

    A new key goes behind the nearest key before it in `order` (names per level), else to the end of its group.
    Raises EditError.
    """
    node: yaml.Node | None = root
    above: Entry | None = None
    flow = False
    for depth, name in enumerate(key):
        names = order[depth] if depth < len(order) else ()
        if not isinstance(node, yaml.MappingNode):
            return _into_nothing(text, above, node, key[depth:], value, written, flow)
        flow = flow or bool(node.flow_style)
        found = _entry(node, name)
        if found is None:
            return _insert(text, node, key[depth:], value, written, names, flow)
        above, node = found, found[1]
    assert above is not None
    return _replace(text, above, value, written, flow)


def without(text: str, root: yaml.MappingNode | None, key: Sequence[str]) -> str:
    """`text` without `key`; a group left empty goes too. Comments beside it stay, on lines of their own."""
    path: list[tuple[yaml.MappingNode, Entry]] = []
    node: yaml.Node | None = root
    for name in key:
        found = _entry(node, name) if isinstance(node, yaml.MappingNode) else None
        if found is None:
            return text
        assert isinstance(node, yaml.MappingNode)
        path.append((node, found))
        node = found[1]
    while len(path) > 1 and len(path[-1][0].value) == 1:
        path.pop()
    mapping, (key_node, value_node) = path[-1]
    begin, end = key_node.start_mark.index, _end(value_node, key_node)
    if mapping.flow_style:
        after = re.compile(r"\s*,[ \t]*").match(text, end)
        if after:
            return text[:begin] + text[after.end() :]
        before = re.search(r",\s*$", text[:begin])
        return text[: before.start() if before else begin] + text[end:]
    line_start = text.rfind("\n", 0, begin) + 1
    if text[line_start:begin].strip():
        raise EditError(f"line {key_node.start_mark.line + 1} holds more than this key")
    line_end = _line_end(text, end)
    kept = [f"{text[line_start:begin]}{comment}\n" for comment in comments_between(text, begin, line_end)]
    return text[:line_start] + "".join(kept) + text[line_end + 1 :]


def written_as(text: str, root: yaml.MappingNode | None, key: Sequence[str]) -> str:
    """How the scalar at `key` is written in the text; empty where there is none, or it is no single line."""
    node: yaml.Node | None = root
    for name in key:
        found = _entry(node, name) if isinstance(node, yaml.MappingNode) else None
        node = found[1] if found else None
    if not isinstance(node, yaml.ScalarNode) or node.style in ("|", ">"):
        return ""
    source = text[node.start_mark.index : node.end_mark.index]
    return "" if "\n" in source else source


def comments_between(text: str, begin: int, end: int) -> list[str]:
    """The comments of this stretch of the text, each from its # to the end of its line."""
    if "#" not in text[begin:end]:
        return []
    edges = [0]
    for token in yaml.scan(text, Loader=yaml.SafeLoader):
        edges += [token.start_mark.index, token.end_mark.index]
    edges.append(len(text))
    found = []
    for start, stop in list(pairwise(edges))[::2]:
        for match in re.finditer(r"#[^\n]*", text[start:stop]):
            if begin <= start + match.start() < end:
                found.append(match.group().rstrip())
    return found


def _entry(node: yaml.MappingNode, name: str) -> Entry | None:
    return next(((key, value) for key, value in node.value if str(key.value) == name), None)


def _end(node: yaml.Node, before: yaml.Node | None = None) -> int:
    """Where a node's own text ends; a block's end mark is that of the next key, behind blank lines and comments."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(last[1], last[0]) if isinstance(last, tuple) else _end(last)
    begin, end = int(node.start_mark.index), int(node.end_mark.index)
    if isinstance(node, yaml.ScalarNode) and node.style in ("|", ">"):
        body = node.start_mark.buffer or ""
        return begin + len(body[begin:end].rstrip())
    return end


def _line_end(text: str, index: int) -> int:
    found = text.find("\n", index)
    return len(text) if found < 0 else found


def _lines(names: Sequence[str], value: Any, written: str, indent: int) -> list[str]:
    """A new entry in block style, with the groups above it that are missing too."""
    first, *rest = names
    pad = " " * indent
    if rest:
        return [f"{pad}{first}:", *_lines(rest, value, written, indent + INDENT)]
    if isinstance(value, list) and value:
        return [f"{pad}{first}:", *(f"{pad}{' ' * INDENT}- {scalar_text(item)}" for item in value)]
    return [f"{pad}{first}: {written or scalar_text(value)}"]


def _flow(names: Sequence[str], value: Any, written: str) -> str:
    first, *rest = names
    if rest:
        return f"{first}: {{{_flow(rest, value, written)}}}"
    return f"{first}: {written or scalar_text(value, flow=True)}"


def _insert(
    text: str, node: yaml.MappingNode, names: Sequence[str], value: Any, written: str, order: Sequence[str], flow: bool
) -> str:
    entries: list[Entry] = list(node.value)
    earlier = list(order[: order.index(names[0])]) if names[0] in order else []
    present = {str(key.value): (key, item) for key, item in entries}
    behind = next((present[name] for name in reversed(earlier) if name in present), entries[-1] if entries else None)
    if flow:
        piece = _flow(names, value, written)
        if behind is None:
            at = node.end_mark.index - 1
            return text[:at] + piece + text[at:]
        at = _end(behind[1], behind[0])
        return f"{text[:at]}, {piece}{text[at:]}"
    assert behind is not None
    lines = _lines(names, value, written, entries[0][0].start_mark.column)
    at = _line_end(text, _end(behind[1], behind[0]))
    return text[:at] + "".join(f"\n{one}" for one in lines) + (text[at:] or "\n")


def _into_nothing(
    text: str, above: Entry | None, node: yaml.Node | None, names: Sequence[str], value: Any, written: str, flow: bool
) -> str:
    """Into a file without keys, or a group without any."""
    if above is None:
        start = text if not text or text.endswith("\n") else f"{text}\n"
        return start + "".join(f"{one}\n" for one in _lines(names, value, written, 0))
    empty = isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"
    if not empty or node is None:
        raise EditError(f"{above[0].value} is not a group of keys here (line {above[0].start_mark.line + 1})")
    begin, end = node.start_mark.index, node.end_mark.index
    if flow or begin != end:
        space = "" if text[begin - 1].isspace() else " "
        return f"{text[:begin]}{space}{{{_flow(names, value, written)}}}{text[end:]}"
    at = _line_end(text, begin)
    lines = _lines(names, value, written, above[0].start_mark.column + INDENT)
    return text[:at] + "".join(f"\n{one}" for one in lines) + (text[at:] or "\n")


def _replace(text: str, entry: Entry, value: Any, written: str, flow: bool) -> str:
    key, node = entry
    begin, end = node.start_mark.index, _end(node)
    block = isinstance(node, yaml.CollectionNode) and not node.flow_style
    if isinstance(value, list) and value and not flow:
        scalars = all(isinstance(item, yaml.ScalarNode) for item in node.value) if block else False
        if isinstance(node, yaml.SequenceNode) and scalars:
            return _replace_items(text, node, value)
        if begin == end or not text[begin:end].count("\n"):
            indent = key.start_mark.column
            behind_colon = text.index(":", key.end_mark.index) + 1
            items = "".join(f"\n{' ' * (indent + INDENT)}- {scalar_text(item)}" for item in value)
            return text[:behind_colon] + items + text[end:]
    source = written or scalar_text(value, flow=flow, quotes=_quotes(node))
    if not block and "\n" not in text[begin:end]:
        if begin == end and not text[begin - 1].isspace():
            source = f" {source}"
        return text[:begin] + source + _aligned(text, end, len(source) - (end - begin))
    behind_colon = text.index(":", key.end_mark.index) + 1
    kept = comments_between(text, behind_colon, end)
    indent = " " * key.start_mark.column
    line_end = _line_end(text, end)
    lines = "".join(f"\n{indent}{comment}" for comment in kept)
    return f"{text[:behind_colon]} {source}{text[end:line_end]}{lines}{text[line_end:]}"


def _quotes(node: yaml.Node) -> str:
    return node.style if isinstance(node, yaml.ScalarNode) and node.style in ("'", '"') else ""


def _aligned(text: str, at: int, longer: int) -> str:
    """The rest of the text from `at`, a comment on the same line kept in its column where there is room."""
    gap = re.compile(r"( {2,})(?=#)").match(text, at)
    if gap is None:
        return text[at:]
    return " " * max(2, len(gap.group()) - longer) + text[gap.end() :]


def _replace_items(text: str, node: yaml.SequenceNode, value: list[Any]) -> str:
    """Item by item, so that comments between them stay where they are."""
    old: list[yaml.Node] = list(node.value)
    cuts: list[tuple[int, int, str]] = []
    for item, new in zip(old, value, strict=False):
        begin, end = item.start_mark.index, _end(item)
        if item.value == new and item.tag == "tag:yaml.org,2002:str":
            continue
        source = scalar_text(new, quotes=_quotes(item))
        if begin == end:
            source = f" {source}"
        cuts.append((begin, end, source))
    pad = " " * node.start_mark.column
    if len(value) > len(old):
        at = _line_end(text, _end(old[-1]))
        cuts.append((at, at, "".join(f"\n{pad}- {scalar_text(item)}" for item in value[len(old) :])))
    elif len(value) < len(old):
        begin = _line_end(text, _end(old[len(value) - 1]))
        end = _line_end(text, _end(old[-1]))
        kept = comments_between(text, begin, end)
        cuts.append((begin, end, "".join(f"\n{pad}{comment}" for comment in kept)))
    for begin, end, source in reversed(cuts):
        text = text[:begin] + source + text[end:]
    return text

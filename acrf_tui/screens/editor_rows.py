"""The form as rows of text: which there are, and how each looks. Nothing here draws."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from rich.cells import cell_len

from acrf_tui.charts.lines import Line, Span, fit, line, spread, wrap
from acrf_tui.printable import printable
from acrf_tui.screens.editor_document import FieldState
from acrf_tui.screens.editor_fields import FormField, FormGroup, Key

MARK = 2
SHORTEST_VALUE = 14
DEFAULT_FROM = 58
"""Cells of width from which the defaults have a column."""
LEGEND = "● changed   ◦ not the default   ✗ wrong"


@dataclass(frozen=True, slots=True)
class Row:
    """A group's heading, or one of its fields."""

    group: FormGroup
    field: FormField | None = None

    @property
    def key(self) -> Key:
        return self.field.key if self.field is not None else (*self.group.key, "")


@dataclass(frozen=True, slots=True)
class Columns:
    """Widths in cells; a default of 0 is not shown."""

    name: int
    value: int
    default: int


def matches(field: FormField, words: Sequence[str]) -> bool:
    """Whether a field's name or help holds all of these words."""
    text = f"{field.dotted} {field.dotted.replace('_', ' ')} {field.help} {' '.join(field.choices)}".casefold()
    return all(word in text for word in words)


def rows_of(groups: Sequence[FormGroup], closed: Collection[Key], words: Sequence[str]) -> list[Row]:
    """The rows to show; a filter looks into closed groups as well."""
    rows: list[Row] = []
    for group in groups:
        fields = [field for field in group.fields if matches(field, words)]
        if fields:
            rows.append(Row(group))
            if words or group.key not in closed:
                rows += (Row(group, field) for field in fields)
    return rows


def columns_for(groups: Sequence[FormGroup], width: int) -> Columns:
    """Columns that fit `width` cells."""
    name = 2 + max((len(field.key[-1]) for group in groups for field in group.fields), default=10)
    name = min(name, max(12, width - MARK - SHORTEST_VALUE - 2))
    room = width - MARK - name - 2
    default = 21 if room >= 48 else 16 if width >= DEFAULT_FROM else 0
    return Columns(name, room - (default + 2 if default else 0), default)


def head_line(columns: Columns) -> Line:
    """The names of the columns."""
    text = f"{'':{MARK + 2}}{'setting':{columns.name - 2}}  {'value':{columns.value}}"
    return line((f"{text}  default" if columns.default else text, "muted"))


def group_line(group: FormGroup, states: Mapping[Key, FieldState], width: int, *, closed: bool, reason: str) -> Line:
    """The heading of a group: how many of its settings are not at their defaults."""
    own = [states[field.key] for field in group.fields if field.key in states]
    arrow = "▸" if closed else "▾"
    wrong = bool(reason) or (closed and any(state.reason for state in own))
    mark: Span = ("✗ ", "bad") if wrong else ("  ", "text")
    if closed and not wrong and any(state.changed for state in own):
        mark = ("● ", "warn")
    count = sum(state.differs for state in own)
    said = f"{count} set" if count else ""
    title = f"{arrow} {group.title}"
    room = width - MARK - cell_len(title) - 2 - (cell_len(said) + 2 if said else 0)
    about = fit(printable(reason or group.help), max(0, room))
    gap = " " * max(0, room - cell_len(about))
    return line(
        mark,
        (title, "bold accent"),
        (f"  {about}{gap}", "bad" if reason else "muted"),
        (f"  {said}" if said else "", "muted"),
    )


def field_line(field: FormField, state: FieldState, columns: Columns) -> Line:
    """One setting: mark, name, value, and its default or what is wrong."""
    if state.reason:
        mark: Span = ("✗ ", "bad")
    elif state.changed:
        mark = ("● ", "warn")
    else:
        mark = ("◦ ", "accent") if state.differs else ("  ", "text")
    name = _cell(f"  {field.key[-1]}", columns.name)
    if state.reason:
        room = columns.value + (columns.default + 2 if columns.default else 0)
        shown = fit(printable(state.shown) or "empty", max(6, room // 3))
        about = fit(printable(state.reason), max(0, room - cell_len(shown) - 2))
        return line(mark, (name, "text"), (f"  {shown}", "bold bad"), (f"  {about}", "bad"))
    shown = printable(state.shown) or ("none" if state.value is None else "empty")
    if not state.editable:
        shown = f"{len(state.value)} in the YAML" if isinstance(state.value, list | dict) else f"{shown}, see the YAML"
    role = "bold text" if state.differs else "muted"
    spans = [mark, (name, "text" if state.differs else "muted"), (f"  {_cell(shown, columns.value)}", role)]
    if columns.default:
        default = printable(state.default) or ("none" if field.default is None else "empty")
        spans.append((f"  {fit(default, columns.default)}" if state.differs else "", "muted"))
    return line(*spans)


@dataclass(frozen=True, slots=True)
class Status:
    """What the line at the top says."""

    folder: str
    name: str
    copy_only: bool
    problems: int
    changed: int
    dirty: bool
    saved: bool


def status_line(status: Status, width: int) -> Line:
    """File, and how it stands with it."""
    folder = f"{status.folder}/" if status.folder else ""
    left = line((" Edit ", "bold accent"), (f" {folder}", "muted"), (status.name, "bold text"))
    if status.copy_only:
        left = (*left, ("  sample: saves a copy", "muted"))
    many = "s" if status.problems > 1 else ""
    if status.dirty:
        state = ("● not saved ", "warn")
    else:
        state = ("saved ", "good") if status.saved else ("no changes ", "muted")
    wrong = (f"✗ {status.problems} problem{many}   " if status.problems else "", "bad")
    return spread(left, line(wrong, (f"{status.changed} changed   " if status.changed else "", "text"), state), width)


def problem_line(messages: Sequence[str], width: int) -> Line:
    """The first thing that is wrong, in the words of the program itself, and how many more there are."""
    if not messages:
        return line(("all settings are valid", "muted"))
    more = f"   and {len(messages) - 1} more" if len(messages) > 1 else ""
    return line(("✗ ", "bad"), (fit(printable(messages[0]), width - len(more) - 2), "text"), (more, "bad"))


def detail_lines(field: FormField, state: FieldState, before: FieldState, width: int, height: int) -> list[Line]:
    """All there is to know of a field: name, what it takes, default, what the file has, what is wrong, its help."""
    default = printable(state.default) or ("none" if field.default is None else "empty")
    facts = [f"default {fit(default, 32)}"]
    if state.changed and before.present:
        facts.append(f"in the file {fit(printable(before.shown) or 'empty', 32)}")
    elif not before.present:
        facts.append("not in the file")
    title = field.dotted
    right = fit("   ".join(facts), max(0, width - cell_len(title) - 3))
    room = width - cell_len(title) - cell_len(right) - 5
    allowed = fit(field.allowed, room) if room >= 8 else ""
    gap = " " * max(1, width - cell_len(title) - 2 - cell_len(allowed) - cell_len(right))
    lines = [line((title, "bold text"), (f"  {allowed}", "muted"), (f"{gap}{right}", "muted"))]
    if state.reason:
        lines += [line((text, "bad")) for text in wrap(printable(state.reason), width)[: max(1, height - 2)]]
    elif not state.editable:
        lines += [line((text, "warn")) for text in wrap("More than one line holds: enter edits it in the YAML.", width)]
    lines += [line((text, "text")) for text in wrap(printable(field.help), width)]
    return lines[:height]


def _cell(text: str, width: int) -> str:
    text = fit(text, width)
    return text + " " * (width - cell_len(text))

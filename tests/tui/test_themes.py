"""Themes: the shipped ones are complete, a wrong one says everything that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.color import Color
from textual.theme import BUILTIN_THEMES, Theme

from acrf_tui.charts.palette import ROLES, colour
from acrf_tui.shipped import shipped
from acrf_tui.themes import DEFAULT_THEME, load_themes, read_theme

READABLE = 4.5
VISIBLE = 1.6


def variables(theme: Theme) -> dict[str, str]:
    return {**theme.to_color_system().generate(), **theme.variables}


def luminance(shade: Color) -> float:
    parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in shade.normalized]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def contrast(a: Color, b: Color) -> float:
    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


THEMES, ERRORS = load_themes([shipped("themes")])


def test_shipped_themes_load_without_errors() -> None:
    assert ERRORS == []
    names = {theme.name for theme in THEMES}
    assert {DEFAULT_THEME, "acrf-light", "acrf-contrast", "acrf-ansi"} <= names


@pytest.mark.parametrize("theme", [t for t in THEMES if not t.ansi], ids=lambda t: t.name)
def test_text_is_readable_and_lines_are_visible(theme: Theme) -> None:
    known = variables(theme)
    background = Color.parse(known["background"])
    for role in ("text", "good", "warn", "bad", "accent", "muted"):
        assert contrast(colour(known, role), background) >= READABLE, role
    for role in ROLES:
        assert contrast(colour(known, role), background) >= (1.25 if role == "meter-track" else VISIBLE), role


@pytest.mark.parametrize("name", ["textual-dark", "textual-light", "nord", "ansi-dark"])
def test_every_role_has_a_colour_in_themes_that_know_nothing_of_us(name: str) -> None:
    known = variables(BUILTIN_THEMES[name])
    assert all(isinstance(colour(known, role), Color) for role in ROLES)


def test_all_errors_of_a_file_are_told_with_file_and_key(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "primary: '#12345'\naccent: #fff\ndark: perhaps\nbogus: red\nvariables:\n  muted: nocolour\n  nope: red\n",
        encoding="utf-8",
    )
    theme, errors = read_theme(file)
    assert theme is None
    text = "\n".join(errors)
    for key in ("primary", "accent", "dark", "bogus", "variables.muted", "variables.nope"):
        assert f"{file}: {key}" in text
    assert len(errors) == 6


def test_a_broken_file_does_not_take_the_others_with_it(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("primary: [", encoding="utf-8")
    (tmp_path / "b.yaml").write_text("primary: blue\n", encoding="utf-8")
    (tmp_path / "c.yaml").write_text("- just a list\n", encoding="utf-8")
    themes, errors = load_themes([tmp_path, tmp_path / "absent"])
    assert [theme.name for theme in themes] == ["b"]
    assert len(errors) == 2


def test_a_user_theme_replaces_a_shipped_one_of_the_same_name(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("name: acrf-dark\nprimary: '#ffffff'\n", encoding="utf-8")
    themes, _ = load_themes([shipped("themes"), tmp_path])
    found = [theme for theme in themes if theme.name == "acrf-dark"]
    assert [theme.primary for theme in found] == ["#ffffff"]

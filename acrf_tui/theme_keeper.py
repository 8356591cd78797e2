"""Which theme is on: the one asked for, remembered or fitting the terminal; the user's own are read again on change."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs
from textual.theme import Theme

from acrf_engine.run.folder import APP_NAME
from acrf_tui.memory import remember, remembered
from acrf_tui.shipped import shipped
from acrf_tui.terminal import ANSI_THEME, background_is_light
from acrf_tui.themes import DEFAULT_THEME, load_themes

if TYPE_CHECKING:
    from acrf_tui.app import AcrfApp

LIGHT_THEME = "acrf-light"
LOOK_SECONDS = 2.0

Version = tuple[tuple[str, int, int], ...]
"""Name, change time and size of every theme of the user."""


def own_themes() -> Path:
    """Where a user keeps themes."""
    return platformdirs.user_config_path(APP_NAME) / "themes"


def version_of(folder: Path) -> Version:
    """What tells whether a theme of `folder` was changed, came or went."""
    found = []
    for file in sorted(folder.glob("*.yaml")):
        try:
            status = os.stat(file)
        except OSError:
            continue
        found.append((file.name, status.st_mtime_ns, status.st_size))
    return tuple(found)


class ThemeKeeper:
    """Registers themes with the app and keeps them as the files are."""

    def __init__(self, app: AcrfApp) -> None:
        self.app = app
        self.previewing = False
        """A theme is only being looked at: it is not remembered."""
        self._unchosen: str | None = None
        """The theme that is on without anybody having chosen it."""
        self._version: Version = ()
        self._own: set[str] = set()
        self._looking = False

    def begin(self) -> list[str]:
        """Read all themes, put the right one on, and go on looking after the user's. Returns what is wrong."""
        self._version = version_of(own_themes())
        shipped_themes, errors = load_themes([shipped("themes")])
        own, wrong = load_themes([own_themes()])
        errors += wrong
        for theme in (*shipped_themes, *own):
            self.app.register_theme(theme)
        self._own = {theme.name for theme in own}
        wanted = self.app.options.theme
        if wanted is not None and wanted not in self.app.available_themes:
            known = ", ".join(sorted(self.app.available_themes))
            errors.append(f"--theme {wanted}: there is no such theme (known: {known})")
        self._put_on(wanted)
        self._unchosen = self.app.theme
        self.app.theme_changed_signal.subscribe(self.app, self._changed)
        if self._version:
            self.app.set_interval(LOOK_SECONDS, self._look)
        return errors

    def _put_on(self, wanted: str | None) -> None:
        app = self.app
        few_colors = app.colorless or app.console.color_system == "standard"
        usual = LIGHT_THEME if background_is_light(os.environ) else DEFAULT_THEME
        for name in (wanted, ANSI_THEME if few_colors else remembered().get("theme"), usual, DEFAULT_THEME):
            if isinstance(name, str) and name in app.available_themes:
                app.theme = name
                break

    def _changed(self, theme: Theme) -> None:
        if self.previewing or theme.name in (self._unchosen, self.app.options.theme):
            return
        self._unchosen = None
        remember(theme=theme.name, dark=theme.dark)

    def choose(self) -> None:
        """Let the user pick a theme, seeing each."""
        from acrf_tui.screens.theme_dialog import ThemeDialog

        def answered(name: str | None) -> None:
            self.previewing = False
            if name is None:
                return
            if self.app.theme != name and name in self.app.available_themes:
                self.app.theme = name
            self._unchosen = None
            self._changed(self.app.current_theme)

        self.previewing = True
        self.app.push_screen(ThemeDialog(self.app.theme), answered)

    # ------------------------------------------------------------------ the user's files, off the app's thread

    def _look(self) -> None:
        if not self._looking:
            self._looking = True
            self.app.run_worker(self._read, thread=True, group="themes", exit_on_error=False)

    def _read(self) -> None:
        try:
            version = version_of(own_themes())
            if version != self._version:
                themes, errors = load_themes([own_themes()])
                self.app.call_from_thread(self._take, themes, errors)
                self._version = version
        finally:
            self._looking = False

    def _take(self, themes: Sequence[Theme], errors: list[str]) -> None:
        """Register what is there now. A theme that is on and became wrong stays as it was."""
        app = self.app
        before = app.available_themes.get(app.theme)
        for theme in themes:
            app.register_theme(theme)
        for name in self._own - {theme.name for theme in themes} - {app.theme}:
            app.unregister_theme(name)
        self._own = {theme.name for theme in themes} | (self._own & {app.theme})
        if app.available_themes.get(app.theme) != before:
            app.put_theme_on_again()
        if errors:
            app.notify("\n".join(errors), title="Themes", severity="warning", timeout=12, markup=False)

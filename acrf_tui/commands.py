"""The command palette: every action of the screen below it by name, and every theme."""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from textual.binding import ActiveBinding
from textual.command import DiscoveryHit, Hit, Hits, Provider
from textual.theme import BUILTIN_THEMES
from textual.types import IgnoreReturnCallbackType


@dataclass(frozen=True, slots=True)
class PaletteCommand:
    """One entry: `name` is searched, `help` says what it does."""

    name: str
    help: str
    run: IgnoreReturnCallbackType


class ActionsProvider(Provider):
    """What can be done now: the actions that have a key, then the themes."""

    async def discover(self) -> Hits:
        for command in self._commands(BUILTIN_THEMES):
            yield DiscoveryHit(command.name, command.run, help=command.help)

    async def search(self, query: str) -> Hits:
        matcher = self.matcher(query)
        for command in self._commands():
            score = matcher.match(command.name)
            if score > 0:
                yield Hit(score, matcher.highlight(command.name), command.run, help=command.help)

    def _commands(self, unlisted: Container[str] = ()) -> Iterator[PaletteCommand]:
        for active in self._bindings():
            binding = active.binding
            key = self.app.get_key_display(binding)
            name = active.tooltip or binding.description
            yield PaletteCommand(f"{name}  [{key}]".replace("[", r"\["), "", partial(self._run, active))
        for theme in sorted(name for name in self.app.available_themes if name not in unlisted):
            text = "the theme that is on" if theme == self.app.theme else ""
            yield PaletteCommand(f"Theme: {theme}", text, partial(self._set_theme, theme))

    def _bindings(self) -> list[ActiveBinding]:
        """The live bindings that are ours, one for each action."""
        found: dict[str, ActiveBinding] = {}
        for active in self.screen.active_bindings.values():
            if active.enabled and active.binding.id and active.binding.description:
                found.setdefault(active.binding.id, active)
        return list(found.values())

    async def _run(self, active: ActiveBinding) -> None:
        await self.app.run_action(active.binding.action, active.node)

    def _set_theme(self, name: str) -> Any:
        self.app.theme = name

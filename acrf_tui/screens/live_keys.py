"""The keys that work on a screen now, as the help shows them."""

from __future__ import annotations

from typing import Any

from textual.screen import Screen

from acrf_tui.screens.dialogs import KeyHelp


def live_keys(screen: Screen[Any]) -> list[KeyHelp]:
    """One line for each binding that has a name, nearest to the focus first, then the palette."""
    keys: dict[str, KeyHelp] = {}
    for one in screen.active_bindings.values():
        if name := one.binding.id:
            key = screen.app.get_key_display(one.binding)
            keys.setdefault(name, KeyHelp(key, one.binding.description, one.tooltip, one.enabled))
    return [*keys.values(), KeyHelp("ctrl+p", "", "Everything by name, and the themes", True)]

"""Names of keys as bindings spell them: which there are, which no terminal sends, and what people write instead."""

from __future__ import annotations

from difflib import get_close_matches

from textual.keys import KEY_TO_UNICODE_NAME, REPLACED_KEYS, Keys, _character_to_key, key_to_character

ALSO_WRITTEN = {
    "esc": "escape", "return": "enter", "del": "delete", "ins": "insert", "pgup": "pageup", "pgdn": "pagedown",
    "page_up": "pageup", "page_down": "pagedown", "spacebar": "space", "arrow_up": "up", "arrow_down": "down",
    "backtab": "shift+tab", "control": "ctrl", "cmd": "super", "dot": "full_stop", "period": "full_stop",
    "hyphen": "minus", "equals": "equals_sign", "hash": "number_sign", "question": "question_mark",
}  # fmt: skip
MODIFIERS = ("ctrl", "alt", "shift", "super", "meta", "hyper")
SAME_TO_A_TERMINAL = {"ctrl+i": "tab", "ctrl+m": "enter", "ctrl+left_square_bracket": "escape", "ctrl+[": "escape"}
TAKEN = {
    "ctrl+c": "copies what is selected",
    "ctrl+q": "always quits",
    "ctrl+p": "always opens the palette",
    "tab": "goes to the next part of the screen",
    "shift+tab": "goes to the part before",
}
"""Keys that always do the same, so that nobody is locked in or out."""
_NAMES = frozenset(key.value for key in Keys if not key.value.startswith("<") and key.value not in ALSO_WRITTEN)


def normal_key(name: str) -> str:
    """The key in the spelling of bindings: `?` is question_mark. Raises ValueError saying what is wrong with it."""
    if len(name) == 1:
        if not name.isprintable():
            raise ValueError(f"{name!r} is no key")
        return "space" if name == " " else _character_to_key(name)
    *modifiers, base = name.split("+") if not name.endswith("++") else [*name[:-2].split("+"), "+"]
    for modifier in modifiers:
        if modifier not in MODIFIERS:
            hint = ALSO_WRITTEN.get(modifier.lower(), "")
            raise ValueError(f"{name!r} is no key ({f'{hint}+{base}' if hint else 'ctrl+, alt+ and shift+ exist'})")
    if len(base) == 1 and base.isprintable() and not base.isspace():
        if "shift" in modifiers and base.isalpha():
            raise ValueError(f"{name!r} comes from a terminal as its capital (write {base.upper()})")
        plain = base if modifiers else _character_to_key(base)
    elif base not in ALSO_WRITTEN and (
        base in _NAMES or base in REPLACED_KEYS or base in KEY_TO_UNICODE_NAME or _names_a_character(base)
    ):
        plain = base
    else:
        raise ValueError(f"{name!r} is no key ({_meant(base, modifiers)})")
    whole = "+".join([*modifiers, plain])
    if whole in SAME_TO_A_TERMINAL:
        raise ValueError(f"{name!r} is the same as {SAME_TO_A_TERMINAL[whole]} to a terminal (choose another)")
    return whole


def _names_a_character(name: str) -> bool:
    char = key_to_character(name)  # the Unicode database knows control characters too, `esc` among them
    return char is not None and char.isprintable() and name == name.lower() and _character_to_key(char) == name


def _meant(base: str, modifiers: list[str]) -> str:
    lower = base.lower()
    found = ALSO_WRITTEN.get(lower) or (lower if lower in _NAMES else "")
    if not found:
        close = get_close_matches(lower, [*_NAMES, *KEY_TO_UNICODE_NAME, *REPLACED_KEYS], n=1)
        found = close[0] if close else ""
    return f"did you mean {'+'.join([*modifiers, found])}?" if found else "see docs/keys.md"

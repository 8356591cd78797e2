"""The command that lists what can be given another key, made from the bindings themselves."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from acrf_tui.keymap import KeyEntry

PLACES = {
    "everywhere": "Everywhere",
    "dashboard": "Dashboard",
    "launchpad": "Launchpad",
    "log": "Log",
    "dialogs": "Dialogs of the dashboard",
    "tweak": "Tweak dialog",
    "new": "New run",
    "theme": "Theme picker",
}
ORDER = tuple(PLACES)
HEAD = """# Keys

Every key can be changed. `acrf-tui keys` prints this list with your own keys in it; this page is made by
`acrf-tui keys --markdown`.

Put ids and keys into `keys.yaml` in the config folder (`acrf-tui paths` says where):

```yaml
run.pause: k
app.leave: [q, f10]
loss.zoom-in: "+"
```

One id takes one key, or several in brackets. A key is the character itself (`p`, `P`, `"/"`), or a name: `space`,
`enter`, `escape`, `up`, `down`, `left`, `right`, `home`, `end`, `pageup`, `pagedown`, `backspace`, `delete`, `insert`,
`f1` to `f12`, each also with `ctrl+`, `alt+` or `shift+` before it. In tmux and in most terminals `ctrl+enter` and
`shift+enter` do not arrive. `ctrl+c`, `ctrl+p`, `ctrl+q`, `tab` and `shift+tab` always do the same and cannot be given
away.

The file is read when the app starts. A line with an unknown id, a name that is no key, or a key that something else on
the same screen has already, is left out and named with its line in one message; the other lines hold. To swap two keys,
give both ids a line. An id that appears in several places gets the key in all of them. In a dialog with a text field a
key that is a character is typed into the field.
"""


def keys(args: argparse.Namespace) -> int:
    """Print the table of ids, keys and meanings."""
    from acrf_tui.keymap import all_entries, read_keys
    from acrf_tui.settings import keys_file

    entries = all_entries()
    if args.markdown:
        print(markdown(entries), end="")
        return 0
    keymap, wrong = read_keys(keys_file())
    rows = [(entry, keymap.get(entry.id, "")) for entry in entries]
    ids = max(len(entry.id) for entry in entries)
    width = max(len(_shown(entry.keys)) for entry in entries)
    for place, some in grouped(entries):
        print(f"{place}")
        for entry, own in rows:
            if entry in some:
                keys_now = _shown(tuple(own.split(","))) if own else _shown(entry.keys)
                changed = f"  (was {_shown(entry.keys)})" if own and own != ",".join(entry.keys) else ""
                print(f"  {entry.id:{ids}}  {keys_now:{width}}  {entry.description}{changed}")
    for problem in wrong:
        print(f"acrf-tui: {problem}", file=sys.stderr)
    return 2 if wrong else 0


def grouped(entries: list[KeyEntry]) -> list[tuple[str, list[KeyEntry]]]:
    """The entries by their place, one of an id each, in the order of a user's way through the app."""
    places: dict[str, dict[str, KeyEntry]] = {}
    for entry in entries:
        places.setdefault(entry.place, {}).setdefault(entry.id, entry)
    order = sorted(places, key=lambda place: (ORDER.index(place) if place in ORDER else len(ORDER), place))
    return [(PLACES.get(place, place.capitalize()), list(places[place].values())) for place in order]


def markdown(entries: list[KeyEntry]) -> str:
    """The page docs/keys.md."""
    parts = [HEAD]
    for place, some in grouped(entries):
        parts.append(f"\n## {place}\n\n| id | key | what it does |\n|---|---|---|\n")
        for entry in some:
            shown = " ".join(f"`{key}`" for key in map(_name, entry.keys))
            parts.append(f"| `{entry.id}` | {shown} | {entry.description} |\n".replace("`|`", "`\\|`"))
    return "".join(parts)


def _shown(keys: tuple[str, ...]) -> str:
    return " ".join(map(_name, keys))


def _name(key: str) -> str:
    from textual.keys import format_key

    shown = format_key(key)  # as it is typed; but `esc` and arrows are no names that a file may use
    return shown if len(shown) == 1 and shown.isascii() and shown != " " else key

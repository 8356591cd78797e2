"""What more than one trainer's config says of its pictures: folders, sizes, captions, masks, regularisation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from acrf_engine.translation.ledger import Ledger, refused

ONE_SET = "one regularisation folder here (put them into one)"
RUNS_SIZE = "regularisation pictures are seen at the run's resolution here"


@dataclass
class Folder:
    """A source under translation: its options as ours, their keys that it comes from, and the sides of its sizes."""

    entry: dict[str, Any]
    keys: list[str]
    sizes: tuple[int, ...] = ()
    size_key: str = ""

    @classmethod
    def at(cls, ledger: Ledger, key: str) -> Folder:
        return cls({"path": str(ledger.peek(key))}, [key])

    def option(self, ledger: Ledger, key: str, ours: str, value: Any = None) -> bool:
        """Take one of their keys over as an option, where it is there; `value` is another than it has.

        What our schema refuses is listed with the refusal. Returns whether it was accepted.
        """
        value = ledger.peek(key) if value is None else value
        if value is None:
            return False
        refusal = refused("dataset", [{**self.entry, ours: value}])
        if refusal:
            ledger.leave(key, refusal)
            return False
        self.entry[ours] = value
        self.keys.append(key)
        return True

    def repeats(self, ledger: Ledger, key: str) -> None:
        """Whole repeats; others are listed."""
        value = ledger.peek(key)
        if value is None:
            return
        if not isinstance(value, int | float) or value != int(value) or not 1 <= value <= 1000:
            ledger.leave(key, "repeats are whole numbers here")
        elif value == 1:
            self.keys.append(key)
        else:
            self.option(ledger, key, "repeats", int(value))

    def suffix(self, ledger: Ledger, key: str) -> None:
        """The suffix of its captions' text files, with or without a dot."""
        value = str(ledger.peek(key, "") or "")
        suffix = f".{value.removeprefix('.')}"
        if suffix == ".json":
            ledger.leave(key, "captions are text files, or entries of a .jsonl or .csv file (captions) here")
        elif suffix == ".txt":
            ledger.take(key)
        elif value:
            self.option(ledger, key, "caption_extension", suffix)

    def sized(self, ledger: Ledger, key: str, several: bool = True) -> None:
        """The sides of its training sizes, as `sides` reads them."""
        if found := sides(ledger, key, several):
            self.sizes, self.size_key = found, key


def sides(ledger: Ledger, key: str, several: bool = True) -> tuple[int, ...]:
    """A side, `width,height`, or a list of sides where there may be several: squares of that area, multiples of 16."""
    value = ledger.peek(key)
    if value is None:
        return ()
    listed = isinstance(value, list) and several
    found = [float(part) for part in str(value).strip("[]()").replace("x", ",").split(",") if _is_number(part)]
    if not found:
        ledger.leave(key, "not a size")
        return ()
    exact = found if listed else [math.sqrt(found[0] * found[-1])]
    rounded = [max(round(side / 16) * 16, 16) for side in exact]
    if rounded != exact:
        ledger.notes.append(f"{key}: {value} is brought to a square's side in multiples of 16")
    return tuple(sorted(set(rounded)))


def place(ledger: Ledger, folders: list[Folder]) -> None:
    """The folders of pictures as our data set; one size that all of them have is the run's."""
    if not folders:
        ledger.notes.append("no folder of pictures was found in the config: set `dataset`")
        return
    folders = _once(ledger, folders)
    sizes = {folder.sizes for folder in folders}
    if len(sizes) == 1 and len(only := sizes.pop()) <= 1:
        if only:
            ledger.put("resolution", only[0], *dict.fromkeys(folder.size_key for folder in folders))
    else:
        for folder in folders:
            if folder.sizes:
                several = list(folder.sizes)
                folder.option(ledger, folder.size_key, "resolution", several if len(several) > 1 else several[0])
    keys = dict.fromkeys(key for folder in folders for key in folder.keys)
    entries = [folder.entry for folder in folders]
    plain = len(entries) == 1 and set(entries[0]) == {"path"}
    ledger.put("dataset", entries[0]["path"] if plain else entries, *keys)


def regularisation(ledger: Ledger, path: str, value: str = "", caption: Any = None, *keys: str) -> bool:
    """A folder of regularisation pictures, named by their key `path`; `keys` go with it.

    Returns whether it was taken: there is one such folder here.
    """
    if "regularisation.path" in ledger.ours:
        return False
    ledger.put("regularisation.path", value or str(ledger.peek(path)), path)
    if caption:
        ledger.put("regularisation.default_caption", str(caption), *keys)
    return True


def regularisation_weight(ledger: Ledger, key: str) -> None:
    """The factor of its loss, where there is a regularisation set."""
    if "regularisation.path" in ledger.ours:
        ledger.move(key, "regularisation.weight")
    else:
        ledger.leave(key, "no regularisation pictures in their config")


def _once(ledger: Ledger, folders: list[Folder]) -> list[Folder]:
    """A folder that is given again for another size is one source with several; a picture counts once here."""
    found: dict[str, Folder] = {}
    for folder in folders:
        path = str(folder.entry["path"])
        first = found.setdefault(path, folder)
        if first is folder:
            continue
        if first.entry == folder.entry and first.sizes and folder.sizes:
            first.sizes = tuple(sorted({*first.sizes, *folder.sizes}))
            first.keys += [*folder.keys, folder.size_key]
        else:
            for key in [*folder.keys, *([folder.size_key] if folder.size_key else [])]:
                ledger.leave(key, "this folder is given above, and each picture is of one source here")
    return list(found.values())


def _is_number(text: str) -> bool:
    try:
        return float(text) > 0
    except ValueError:
        return False

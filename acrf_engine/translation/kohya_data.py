"""The pictures of kohya's trainer: a dataset config's subsets, or folders named by their repeats."""

from __future__ import annotations

import re
from pathlib import Path

from acrf_engine.translation import parts, pictures
from acrf_engine.translation.ledger import Ledger
from acrf_engine.translation.pictures import Folder

DEFAULT_SUFFIX = ".caption"
SUBSET = re.compile(r"((datasets\.\d+)\.subsets\.\d+)\.image_dir")


def translate(ledger: Ledger, path: Path) -> None:
    """Sources, regularisation set, sizes and what kohya has for all of them; `path` is its config's file."""
    folders = []
    plain: list[str] = []
    for key in list(ledger.theirs):
        if match := SUBSET.fullmatch(key):
            subset, dataset = match[1], match[2]
            if ledger.peek(f"{subset}.is_reg"):
                _regularisation(ledger, subset, key)
                continue
            folder = Folder.at(ledger, key)
            _options(ledger, folder, [f"{subset}.", f"{dataset}.", "general.", ""], plain)
            folders.append(folder)
    given = ledger.peek("train_data_dir")
    if isinstance(given, str) and not folders:
        folders = _named_by_repeats(path.parent / given, given)
        for folder in folders:
            _options(ledger, folder, [""], plain)
        _regularisation_by_repeats(ledger, path)
    pictures.place(ledger, folders)
    for key in dict.fromkeys(plain):
        ledger.take(key)
    pictures.regularisation_weight(ledger, "prior_loss_weight")
    if any("masks" in folder.entry for folder in folders):
        ledger.take("masked_loss")
    _for_all(ledger)


def _options(ledger: Ledger, folder: Folder, places: list[str], plain: list[str]) -> None:
    """What holds for a subset: its own, else its dataset's, else that of all. `plain` gets what is so here anyway."""

    def nearest(*names: str) -> str:
        return next((key for place in places for name in names if ledger.has(key := f"{place}{name}")), "")

    if "repeats" not in folder.entry and (key := nearest("num_repeats", "dataset_repeats")):
        folder.repeats(ledger, key)
    if "default_caption" not in folder.entry and (key := nearest("class_tokens")):
        folder.option(ledger, key, "default_caption")
    if key := nearest("caption_prefix"):
        folder.option(ledger, key, "prefix")
    key = nearest("caption_extension")
    if key and ledger.peek(key) == ".txt":
        plain.append(key)
    elif key:
        folder.suffix(ledger, key)
    else:
        folder.entry["caption_extension"] = DEFAULT_SUFFIX
        if (said := f"captions end in {DEFAULT_SUFFIX}, kohya's default (caption_extension)") not in ledger.notes:
            ledger.notes.append(said)
    if (key := nearest("alpha_mask")) and ledger.peek(key):
        folder.option(ledger, key, "masks", "alpha")
    elif (key := nearest("conditioning_data_dir")) and ledger.peek("masked_loss"):
        folder.option(ledger, key, "masks")
    if key := nearest("resolution"):
        folder.sized(ledger, key, several=False)


def _regularisation(ledger: Ledger, subset: str, key: str) -> None:
    words = ledger.peek(f"{subset}.class_tokens")
    if pictures.regularisation(ledger, key, "", words, f"{subset}.class_tokens"):
        ledger.take(f"{subset}.is_reg")
        ledger.leave(f"{subset}.num_repeats", "as many as training pictures, as there (regularisation.ratio)")
    else:
        ledger.leave_all(re.escape(subset) + r"\..*", pictures.ONE_SET)


def _named_by_repeats(folder: Path, given: str) -> list[Folder]:
    """`10_name concept` folders: repeats and, where there is no caption, the words."""
    named = _numbered(folder)
    if not named:
        return [Folder({"path": given}, ["train_data_dir"])]
    return [
        Folder({"path": str(folder / name), "repeats": repeats, "default_caption": words}, ["train_data_dir"])
        for name, repeats, words in named
    ]


def _regularisation_by_repeats(ledger: Ledger, path: Path) -> None:
    """Its sub-folders are all read; their numbers do not count, since kohya too takes as many as training pictures."""
    given = ledger.peek("reg_data_dir")
    if isinstance(given, str):
        named = _numbered(path.parent / given)
        words = named[0][2] if len(named) == 1 else None
        pictures.regularisation(ledger, "reg_data_dir", given, words, "reg_data_dir")


def _numbered(folder: Path) -> list[tuple[str, int, str]]:
    """The sub-folders that are named `NUMBER_WORDS`: name, number and words."""
    names = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    return [(name, int(match[1]), match[2]) for name in names if (match := re.fullmatch(r"(\d+)_(.+)", name))]


def _for_all(ledger: Ledger) -> None:
    """Settings that they have by folder and we for all."""
    batches, flips, dropouts, growing = [], [], [], []
    for key in list(ledger.theirs):
        place, _, name = key.rpartition(".")
        if place and not place.startswith(("general", "datasets")):
            continue
        match name:
            case "batch_size" | "train_batch_size":
                batches.append(key)
            case "flip_aug":
                flips.append(key)
            case "caption_dropout_rate":
                dropouts.append(key)
            case "bucket_no_upscale":
                growing.append(key)
            case "resolution":
                _run_resolution(ledger, key)
    parts.same_everywhere(ledger, batches, "batch_size")
    parts.same_everywhere(ledger, flips, "data.flip")
    parts.same_everywhere(ledger, dropouts, "data.caption_dropout")
    if len({bool(ledger.peek(key)) for key in growing}) == 1:
        ledger.put("data.upscale", not ledger.peek(growing[0]), *growing)
    for key in growing:
        ledger.leave(key, "one value for all folders here (data.upscale)")
    ledger.default("data.upscale", True)


def _run_resolution(ledger: Ledger, key: str) -> None:
    """A size that no folder has taken."""
    if "resolution" not in ledger.ours and (sizes := pictures.sides(ledger, key, several=False)):
        ledger.put("resolution", sizes[0], key)
    else:
        ledger.leave(key, "every folder has a size of its own")

"""Captions of many pictures in one file: JSON lines or CSV, as Hugging Face's imagefolder has them."""

from __future__ import annotations

import csv
import json
import os
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from acrf_engine.data.captions import MAX_BYTES, one_line
from acrf_engine.data.errors import DataError, printable

METADATA_NAMES = ("metadata.jsonl", "metadata.csv")
NAME_KEY, TEXT_KEYS = "file_name", ("text", "caption")

_MAX_FILE_BYTES = 1 << 30


@dataclass(frozen=True)
class Entry:
    """A picture's caption, None where it is empty, and where it stands (`FILE:LINE`)."""

    picture: Path
    text: str | None
    where: str


@dataclass
class CaptionsFiles:
    """What the captions files of one source say about its pictures; `used` names those that were asked for."""

    entries: dict[str, Entry] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)

    def of(self, picture: Path) -> Entry | None:
        """The entry of a picture, whichever way its name is composed in Unicode."""
        name = _normal(picture)
        entry = self.entries.get(name)
        if entry is not None:
            self.used.add(name)
        return entry

    def unused(self) -> Iterator[Entry]:
        """Entries that name no picture of the source, in the order of the files."""
        return (entry for name, entry in self.entries.items() if name not in self.used)

    def read(self, file: Path, folders: Sequence[Path]) -> None:
        """Add the entries of `file`; its names are relative to the first of `folders` where such a file is.

        Raises DataError naming file and line: it cannot be read, a line is no entry, or a picture has two captions.
        """
        for line, values in _rows(file):
            where = f"{printable(file)}:{line}"
            name = values.get(NAME_KEY)
            if not isinstance(name, str) or not name.strip():
                raise DataError(f"{where}: {NAME_KEY}: expected the name of a picture, got {_shown(name)}")
            key = next((key for key in TEXT_KEYS if key in values), None)
            if key is None:
                found = ", ".join(printable(other) for other in values if isinstance(other, str))
                raise DataError(f"{where}: no `{TEXT_KEYS[0]}` or `{TEXT_KEYS[1]}` for the caption (it has: {found})")
            text = values[key]
            if text is not None and not isinstance(text, str):
                raise DataError(f"{where}: {key}: expected text, got {_shown(text)}")
            text = one_line(text or "")
            if len((text or "").encode("utf-8", "surrogatepass")) > MAX_BYTES:
                raise DataError(f"{where}: {key}: longer than {MAX_BYTES:,} bytes (shorten it)")
            places = [Path(os.path.normpath(folder / name)) for folder in folders]
            try:
                picture = next((place for place in places if place.exists()), places[0])
            except (OSError, ValueError):
                picture = places[0]
            before = self.entries.setdefault(_normal(picture), Entry(picture, text, where))
            if before.text != text:
                raise DataError(f"{where}: {printable(name)} has another caption in {before.where} (remove one)")


def _rows(file: Path) -> Iterator[tuple[int, dict[Any, Any]]]:
    shown = printable(file)
    try:
        if file.stat().st_size > _MAX_FILE_BYTES:
            raise DataError(f"{shown}: larger than {_MAX_FILE_BYTES >> 30} GiB (split the data set)")
        with file.open(encoding="utf-8-sig", newline="") as stream:
            yield from _csv_rows(shown, stream) if file.suffix.lower() == ".csv" else _json_rows(shown, stream)
    except UnicodeDecodeError as error:
        raise DataError(f"{shown}: not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except OSError as error:
        raise DataError(f"{shown}: the captions cannot be read: {(error.strerror or str(error)).lower()}") from error


def _json_rows(shown: str, stream: Any) -> Iterator[tuple[int, dict[Any, Any]]]:
    for line, text in enumerate(stream, start=1):
        if not text.strip():
            continue
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            why = getattr(error, "msg", "too deep or too long")
            raise DataError(f"{shown}:{line}: not JSON: {why} (each line is one object)") from error
        if not isinstance(values, dict):
            raise DataError(f"{shown}:{line}: expected an object with {NAME_KEY} and {TEXT_KEYS[0]}")
        yield line, values


def _csv_rows(shown: str, stream: Any) -> Iterator[tuple[int, dict[Any, Any]]]:
    reader = csv.DictReader(stream, strict=True)
    try:
        if NAME_KEY not in (reader.fieldnames or []):
            raise DataError(f"{shown}:1: no column {NAME_KEY} in the first line (it names the columns)")
        for values in reader:
            if None in values:
                raise DataError(f"{shown}:{reader.line_num}: more values than columns (quote captions with commas)")
            yield reader.line_num, values
    except csv.Error as error:
        raise DataError(f"{shown}:{reader.line_num}: not CSV: {error}") from error


def _normal(picture: Path) -> str:
    return unicodedata.normalize("NFC", os.path.normpath(picture))


def _shown(value: object) -> str:
    return "nothing" if value is None else printable(repr(value)[:80])

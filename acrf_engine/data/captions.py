"""Captions: a text file of the same name beside each picture."""

from __future__ import annotations

import re
from pathlib import Path

from acrf_engine.data.errors import DataError, printable

MAX_BYTES = 64 * 1024


def read_caption(picture: Path, extension: str = ".txt") -> str | None:
    """Return the caption beside `picture` (`photo.jpg` -> `photo.txt`), or None when it is missing or empty.

    The text is UTF-8 with or without a byte order mark; every run of white space, newlines included, becomes one space.
    Raises DataError when the file is not UTF-8 text, is larger than `MAX_BYTES` or cannot be read.
    """
    for suffix in dict.fromkeys((extension, extension.upper())):
        file = picture.with_suffix(suffix)
        try:
            if file.is_file():
                return _read(file)
        except OSError as error:
            raise DataError(f"{printable(file)}: the caption cannot be read: {error.strerror}") from error
    return None


def with_trigger(caption: str, trigger: str) -> str:
    """Put `trigger` in front of `caption`, unless the caption already holds it as a whole word in any case.

    In both, every run of white space becomes one space.
    """
    caption, trigger = " ".join(caption.split()), " ".join(trigger.split())
    if not trigger or re.search(rf"(?<!\w){re.escape(trigger)}(?!\w)", caption, re.IGNORECASE):
        return caption
    return f"{trigger}, {caption}" if caption else trigger


def _read(file: Path) -> str | None:
    with file.open("rb") as stream:
        data = stream.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise DataError(
            f"{printable(file)}: the caption is {file.stat().st_size:,} bytes long; at most {MAX_BYTES:,} are allowed"
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        looks = ", it looks like UTF-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else f" (byte {error.start})"
        raise DataError(f"{printable(file)}: the caption is not UTF-8 text{looks}; save it as UTF-8") from error
    # UTF-16 without a byte order mark decodes as UTF-8 with a NUL beside every letter.
    if "\0" in text:
        raise DataError(f"{printable(file)}: the caption is not text (it holds NUL bytes); save it as UTF-8")
    return one_line(text)


def one_line(text: str) -> str | None:
    """`text` with every run of white space as one space; None where nothing is left."""
    return " ".join(text.split()) or None

"""Configs on disk: read, saved atomically where nobody changed them meanwhile, drafts kept. Blocks: for workers."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import stat
import time
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from acrf_engine.run.folder import APP_NAME, write_private
from acrf_engine.yaml_source import MAX_CONFIG_BYTES
from acrf_tui.printable import printable
from acrf_tui.screens.launchpad_configs import own_config_folder
from acrf_tui.shipped import shipped

ODD_BREAKS = re.compile("[\v\f\x1c\x1d\x1e\x85\u2028\u2029]")
BYTE_ORDER_MARK = "\ufeff"
REASONS = {
    errno.ENOSPC: "there is no space left on the disk",
    errno.EDQUOT: "your disk quota is used up",
    errno.EROFS: "the disk is read-only",
    errno.EACCES: "you may not write there",
    errno.EPERM: "you may not write there",
    errno.ENOENT: "there is no such folder",
    errno.ENOTDIR: "there is no such folder",
    errno.ENAMETOOLONG: "the name is too long",
}


class FileTrouble(Exception):
    """A config can be neither read nor saved. `str()` is one message: FILE: what is wrong (what to do)."""


class Overtaken(Exception):
    """The file is another than the one that was read."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file as it was read: its text with plain line ends, and how to write it back as it was."""

    text: str = ""
    raw: bytes | None = None
    crlf: bool = False
    marked: bool = False


@dataclass(frozen=True, slots=True)
class Draft:
    """What was typed and not saved. `written` in Unix seconds; `begun` is the digest of the file's text then."""

    text: str
    written: float
    begun: str = ""

    def is_of(self, text: str) -> bool:
        """Whether the file still has the text that the draft was begun with."""
        return self.begun == digest(text)


def read_source(path: Path) -> Source:
    """The file's text. Raises FileTrouble; an absent file is one too."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise FileTrouble(f"{printable(str(path))}: cannot be read ({error.strerror})") from None
    if len(raw) > MAX_CONFIG_BYTES:
        raise FileTrouble(
            f"{printable(str(path))}: {len(raw):,} bytes is too long for a config (at most {MAX_CONFIG_BYTES:,})"
        )
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FileTrouble(f"{printable(str(path))}: not UTF-8 text at byte {error.start} (save it as UTF-8)") from None
    marked = text.startswith(BYTE_ORDER_MARK)
    text = text.removeprefix(BYTE_ORDER_MARK)
    crlf = "\r\n" in text
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    odd = ODD_BREAKS.search(text)
    if odd is not None:
        line = text.count("\n", 0, odd.start()) + 1
        raise FileTrouble(
            f"{printable(str(path))}:{line}: holds {odd.group()!a}, a line break that editors hide (remove it)"
        )
    return Source(text, raw, crlf, marked)


def encoded(text: str, like: Source) -> bytes:
    """The bytes of a text, with the line ends and the byte order mark of the file it came from."""
    if like.crlf:
        text = text.replace("\n", "\r\n")
    return f"{BYTE_ORDER_MARK if like.marked else ''}{text}".encode()


def save(path: Path, text: str, like: Source, expected: bytes | None) -> Source:
    """Write the file beside and rename it into place, keeping its mode; `expected` are the bytes it must still hold.

    None: there must be no file yet. Raises Overtaken where that does not hold, FileTrouble where it cannot be written.
    """
    real = Path(os.path.realpath(path))
    raw = encoded(text, like)
    temporary = real.with_name(f".{real.name[:200]}.{os.getpid()}.tmp")
    try:
        try:
            current: bytes | None = real.read_bytes()
            mode = stat.S_IMODE(real.stat().st_mode)
        except FileNotFoundError:
            current, mode = None, None
        if current != expected:
            raise Overtaken
        if mode is not None and not os.access(real, os.W_OK):
            raise PermissionError(errno.EACCES, "the file is read-only")
        private = real.parent == own_config_folder()
        if private:
            real.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600 if private else 0o666)
        with open(fd, "wb") as file:
            if mode is not None:
                os.fchmod(fd, mode)
            file.write(raw)
            file.flush()
            os.fsync(fd)
        os.replace(temporary, real)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        reason = REASONS.get(error.errno or 0) or error.strerror or str(error)
        raise FileTrouble(
            f"{printable(str(path))}: not saved: {reason} (what you typed stays here; Save as puts it somewhere else)"
        ) from None
    return Source(text, raw, like.crlf, like.marked)


def read_again(path: Path) -> bytes | None:
    """What the file holds now; None where there is none."""
    try:
        return path.read_bytes()
    except OSError:
        return None


# ---- where to save --------------------------------------------------------------------------------------------------


def is_shipped(path: Path) -> bool:
    """Whether this is a config that came with the program: it is copied, never changed."""
    return path.resolve().parent == shipped("sample_configs").resolve()


def saving_folders() -> list[tuple[str, Path]]:
    """Where the launchpad finds a user's configs, each with what to call it."""
    folders = [("with your configs", own_config_folder())]
    with contextlib.suppress(OSError):
        here = Path.cwd()
        if here.resolve() != shipped("sample_configs").resolve() and os.access(here, os.W_OK):
            folders.append(("in this folder", here))
    return folders


def fresh_path(folder: Path, stem: str) -> Path:
    """A name in the folder that no file has yet."""
    candidate, number = folder / f"{stem}.yaml", 2
    while os.path.lexists(candidate):
        candidate, number = folder / f"{stem}-{number}.yaml", number + 1
    return candidate


def found_by_launchpad(path: Path) -> bool:
    """Whether the launchpad will list this file."""
    places = [folder.resolve() for _, folder in saving_folders()]
    return path.suffix == ".yaml" and not path.name.startswith(".") and path.parent.resolve() in places


# ---- drafts ---------------------------------------------------------------------------------------------------------


def draft_file(path: Path) -> Path:
    """Where the draft of a config is kept."""
    name = hashlib.sha256(os.fsencode(os.path.abspath(path))).hexdigest()[:24]
    return platformdirs.user_state_path(APP_NAME) / "drafts" / f"{name}.json"


def digest(text: str) -> str:
    """Tells one text from another."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:24]


def keep_draft(path: Path, text: str, begun: str = "") -> None:
    """Write what was typed, for the next time. Raises OSError."""
    file = draft_file(path)
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    body = {"path": os.fsdecode(os.fsencode(path)), "text": text, "written": time.time(), "begun": digest(begun)}
    write_private(file, json.dumps(body) + "\n")


def find_draft(path: Path) -> Draft | None:
    """The draft of a config, if there is one that can be read."""
    try:
        body = json.loads(draft_file(path).read_text(encoding="utf-8"))
        return Draft(str(body["text"]), float(body["written"]), str(body["begun"]))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def drop_draft(path: Path) -> None:
    """Forget the draft."""
    with contextlib.suppress(OSError):
        draft_file(path).unlink(missing_ok=True)

"""Pictures, names and captions as nobody would wish them, through `check` and `train`."""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import struct
import subprocess
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from acrf_engine.config import ASSETS, DatasetSource
from acrf_engine.data.scan import scan
from acrf_engine.run.folder import RunFolder
from tests.faults.conftest import Row
from tests.faults.live import APP, Line, LiveRun, as_nobody, cli, closing, eventually

GOOD = sorted((ASSETS / "demo").glob("*.png"))
TITLE, SEQUENCE = "\x1b]0;pwned\x07", "\x1b[9999z"
SPEAKING = f"{TITLE}{SEQUENCE}[red]a\nb"
"""A name and a caption that would speak to a terminal, to Rich's markup, and break a line."""


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def picture(seed: int, mode: str = "RGB") -> Image.Image:
    """Another picture for each seed: copies of one content would be left out."""
    image = Image.open(GOOD[seed % len(GOOD)]).convert("RGB").resize((96, 96))
    image.putpixel((0, 0), (seed, seed, seed))
    return image.convert(mode)


def bomb() -> bytes:
    """A PNG of a few bytes whose header promises 40,000 x 40,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(picture(5).resize((96, 64)), "JPEG", exif=exif.tobytes())


def sixteen_bit() -> bytes:
    grey = np.asarray(picture(6, "L"), dtype=np.uint16) * 257
    return encoded(Image.fromarray(grey), "PNG")


BROKEN: dict[str, tuple[Callable[[], bytes], str]] = {
    "half.jpg": (lambda: (data := encoded(picture(1), "JPEG"))[: len(data) // 2], "truncated"),
    "bomb.png": (bomb, "too large"),
    "nothing.png": (lambda: b"", "empty file"),
    "text.png": (lambda: b"these are words", "not an image"),
    "tiff.png": (lambda: encoded(picture(2), "TIFF"), "TIFF"),
}
ODD: dict[str, Callable[[], bytes]] = {
    "moving.gif.png": lambda: encoded(picture(10), "GIF", save_all=True, append_images=[picture(11)], duration=9),
    "moving.webp": lambda: encoded(picture(12), "WEBP", save_all=True, append_images=[picture(13)], duration=9),
    "print.jpg": lambda: encoded(picture(14, "CMYK"), "JPEG"),
    "deep.png": sixteen_bit,
    "palette.png": lambda: encoded(picture(15, "P"), "PNG", transparency=0),
    "phone.jpg": rotated,
}


@pytest.fixture(scope="module")
def bad_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four good pictures, odd ones that can be used, broken ones, and names and captions that are hostile."""
    folder = tmp_path_factory.mktemp("data") / "pictures"
    folder.mkdir()
    for path in GOOD[:4]:
        shutil.copy(path, folder)
    for name, make in [*ODD.items(), *((name, make) for name, (make, _) in BROKEN.items())]:
        (folder / name).write_bytes(make())
    hostile = [
        os.fsencode(f"{SPEAKING}.png"), b"\xff\xfe.png", b"-rf.png", b"[bold]x[blink].png", b"n" * 251 + b".png",
    ]  # fmt: skip
    for seed, raw in enumerate(hostile, start=20):
        (folder / os.fsdecode(raw)).write_bytes(encoded(picture(seed), "PNG"))
    (folder / f"broken {SPEAKING}.png").write_bytes(b"no picture")
    (folder / "deep.txt").write_text(f"a caption {SPEAKING} with more", encoding="utf-8")
    (folder / "print.txt").write_text("[red]markup[/red] [link=file:///x]y", encoding="utf-8")
    os.symlink(folder, folder / "loop")
    os.symlink(folder / "self.png", folder / "self.png")
    os.symlink("/nowhere.png", folder / "dangling.png")
    os.mkfifo(folder / "pipe.png")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as there:
        here = os.getcwd()
        os.chdir(folder)  # a socket's path is short
        there.bind("socket.png")
        os.chdir(here)
    return folder


def config_of(place: Path, data: Path) -> Path:
    config = place / "c.yaml"
    config.write_text(f"model: tiny\ndataset: {data}\nsteps: 3\ntrigger: sks\n", encoding="utf-8")
    return config


def speaks(raw: bytes) -> bool:
    """Whether a name's or a caption's escape sequence stands in it raw."""
    return TITLE.encode() in raw or SEQUENCE.encode() in raw


def left_out(name: str, reasons: dict[str, str]) -> str:
    return next(reason for path, reason in reasons.items() if path.endswith(f"/{name}"))


@pytest.mark.fault("data: every broken and every odd picture, hostile names, loops, pipes and sockets")
def test_a_folder_of_horrors_is_checked_and_trained_on(bad_folder: Path, row: Row, tmp_path: Path) -> None:
    """Within the time of a test: the bad are named with the reason, all others trained on; no escape sequence raw."""
    broken = [*BROKEN, "self.png", "dangling.png", "pipe.png", "socket.png"]
    good = 4 + len(ODD) + 5
    row.trials = len(broken) + len(ODD) + 6
    config = config_of(tmp_path, bad_folder)
    done = cli("check", str(config), "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    reasons = {item["path"]: item["reason"] for item in report["left_out"]}
    assert report["pictures"] == good, reasons
    assert len(reasons) == len(broken) + 1
    for name, (_, reason) in BROKEN.items():
        assert reason in left_out(name, reasons)
    assert left_out("pipe.png", reasons) == left_out("socket.png", reasons) == "not a regular file"
    plain = cli("check", str(config))
    assert not speaks(plain.stdout.encode())
    assert not speaks(done.stdout.encode())

    runs = tmp_path / "runs"
    done = cli("train", str(config), "--headless", "--runs", str(runs), "--name", "run")
    assert done.returncode == 0, done.stderr
    assert f"{good} pictures, 3 steps" in done.stderr
    assert sum("left out: " in line for line in done.stderr.splitlines()) == len(reasons)
    assert not speaks(done.stderr.encode("utf-8", "replace"))
    assert not speaks((runs / "run" / "worker.log").read_bytes())
    with closing(Line([*APP, "attach", str(runs / "run")], columns=160, rows=60)) as app:
        app.until("FINISHED", "left out")
        app.drain()
        assert not speaks(bytes(app.raw))
        assert "Traceback" not in app.text


@pytest.mark.fault("data: captions that are no text")
@pytest.mark.parametrize(
    ("caption", "says"),
    [
        pytest.param(b"a\0b", "NUL", id="NUL"),
        pytest.param(b"word " * 200_000, "1,000,000 bytes", id="1 MB"),
        pytest.param(b"caf\xe9 au lait", "UTF-8", id="Latin-1"),
        pytest.param("ein Bild".encode("utf-16"), "UTF-16", id="UTF-16"),
    ],
)
def test_a_caption_that_is_no_text_is_refused_by_name(tmp_path: Path, row: Row, caption: bytes, says: str) -> None:
    """`check` ends with status 2, naming the file and what is wrong with it."""
    data = tmp_path / "data"
    data.mkdir()
    shutil.copy(GOOD[0], data / "a.png")
    (data / "a.txt").write_bytes(caption)
    done = cli("check", str(config_of(tmp_path, data)))
    assert done.returncode == 2
    assert f"{data}/a.txt" in done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.fault("data: files that may not be read")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user who may not read root's files")
def test_a_picture_that_may_not_be_read_is_left_out(tmp_path: Path, row: Row) -> None:
    """It is left out with `permission denied`, the others are taken."""
    data = tmp_path / "data"
    data.mkdir()
    for path in GOOD[:3]:
        shutil.copy(path, data)
    (data / GOOD[0].name).chmod(0)
    (data / "closed").mkdir(mode=0)
    for parent in [data, *data.parents]:
        if parent.stat().st_uid == os.geteuid() and parent.is_relative_to(tempfile.gettempdir()):
            parent.chmod(parent.stat().st_mode | 0o055)
    closed = str(["cannot be read: permission denied", "folder cannot be read: permission denied"])

    def look() -> tuple[int, list[str]]:
        found = scan([DatasetSource(path=str(data))])
        return len(found.pictures), sorted(item.reason for item in found.rejected)

    assert as_nobody(look) == f"(2, {closed})"


@pytest.mark.full_only
@pytest.mark.fault("data: changed under the run")
def test_data_that_changes_under_the_run(row: Row, tmp_path: Path) -> None:
    """The run goes on from its cache; resumed, it is refused with status 2 until the data are as before."""
    row.trials = 3
    data = Path(shutil.copytree(ASSETS / "demo", tmp_path / "data"))
    live = LiveRun(tmp_path / "runs", "run", "--set", f"dataset={data}", "--set", "checkpoint.every=5")
    try:
        victim, replaced, edited = sorted(data.glob("*.png"))[:3]
        kept = {path: path.read_bytes() for path in (victim, replaced, edited.with_suffix(".txt"))}
        victim.unlink()
        replaced.write_bytes(encoded(picture(40), "PNG"))
        edited.with_suffix(".txt").write_text("quite another caption", encoding="utf-8")
        live.trains_on()
        done = live.control("stop")
        assert done.returncode == 0, done.stderr
        live.process.wait(30)
    finally:
        live.end()
    for changed in kept:
        for path, content in kept.items():
            path.write_bytes(content)
        if changed == victim:
            changed.unlink()
        else:
            changed.write_bytes(encoded(picture(41), "PNG") if changed == replaced else b"another caption")
        refused = _resume(live.folder)
        assert refused.returncode == 2, refused.stderr
        what = "captions" if changed.suffix == ".txt" else "pictures"
        assert f"the {what} changed since step-" in refused.stderr
    for path, content in kept.items():
        path.write_bytes(content)
    done = _resume(live.folder)
    assert done.returncode == 0, done.stderr


def _resume(folder: RunFolder) -> subprocess.CompletedProcess[str]:
    return cli("resume", str(folder.path), "--headless", "--steps", str(folder.read_status().step + 2))


@pytest.mark.full_only
@pytest.mark.fault("data: changed while it is being cached")
def test_a_picture_replaced_while_caching_is_noticed(row: Row, tmp_path: Path) -> None:
    """The run ends with status 2 naming the picture, or has it in its new form; never with a traceback."""
    data = Path(shutil.copytree(ASSETS / "demo", tmp_path / "data"))
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    runs = tmp_path / "runs"
    runs.mkdir()
    last = sorted(data.glob("*.png"))[-1]
    process = subprocess.Popen(
        [*APP, "train", str(config_of(tmp_path, data)), "--headless", "--runs", str(runs), "--name", "run"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    eventually(lambda: any((tmp_path / "cache").rglob("captions/*/*.safetensors")), "no caption is cached")
    last.write_bytes(encoded(picture(50), "PNG"))
    _, words = process.communicate(timeout=90)
    assert process.returncode in (0, 2)
    assert process.returncode == 0 or last.name in words
    assert "Traceback" not in words

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from acrf_engine.data.scan import DataError, Scan, scan

Photos = dict[str, Image.Image]
Source = Callable[..., Any]


def names(result: Scan, home: Path) -> list[str]:
    return [picture.path.relative_to(home).as_posix() for picture in result.pictures]


def reasons(result: Scan) -> dict[str, str]:
    return {rejected.path.name: rejected.reason for rejected in result.rejected}


def test_a_folder_of_photographs_and_captions(folder: Path, source: Source) -> None:
    result = scan([source(str(folder), repeats=3)], trigger="sks")
    assert names(result, folder) == ["astronaut.png", "chelsea.png", "coffee.png"]
    first = result.pictures[0]
    assert first.sha256 == hashlib.sha256((folder / "astronaut.png").read_bytes()).hexdigest()
    assert (first.width, first.height) == Image.open(folder / "astronaut.png").size
    assert first.caption == "sks, a photo of astronaut"
    assert first.has_caption_file
    assert first.repeats == 3
    assert result.rejected == ()


def test_without_a_caption_file_the_default_caption_counts(folder: Path, source: Source) -> None:
    (folder / "coffee.txt").unlink()
    (folder / "chelsea.txt").write_text("\n")
    result = scan([source(str(folder), default_caption="a  photo")])
    assert [(p.caption, p.has_caption_file) for p in result.pictures] == [
        ("a photo of astronaut", True),
        ("a photo", False),
        ("a photo", False),
    ]


def test_sub_folders_count_and_hidden_ones_do_not(folder: Path, source: Source, photos: Photos) -> None:
    for place in ("more/deep", ".thumbnails", "more/.cache"):
        (folder / place).mkdir(parents=True)
    photos["rocket"].save(folder / "more/deep/ROCKET.JPG")
    for hidden in (".thumbnails/a.png", "more/.cache/b.png", "more/._c.png"):
        photos["rocket"].resize((40, 40)).save(folder / hidden)
    result = scan([source(str(folder))])
    assert names(result, folder) == ["astronaut.png", "chelsea.png", "coffee.png", "more/deep/ROCKET.JPG"]
    assert result.rejected == ()


def test_the_order_does_not_depend_on_how_files_were_made(tmp_path: Path, source: Source, photos: Photos) -> None:
    wanted = ["B.png", "a/z.png", "a.png", "b.png", "c10.png", "c9.png", "é.png", "猫.png"]
    results = []
    for number, order in enumerate((wanted, wanted[::-1])):
        home = tmp_path / str(number)
        for name in order:
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            photos["rocket"].resize((40 + wanted.index(name), 40)).save(home / name)
        results.append(scan([source(str(home))]))
        assert names(results[-1], home) == sorted(wanted)
    assert results[0].fingerprint == results[1].fingerprint


def test_broken_files_are_left_out_each_with_its_reason(folder: Path, source: Source, photos: Photos) -> None:
    whole = (folder / "coffee.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.png").write_text("not a picture")
    photos["rocket"].resize((8, 8)).save(folder / "icon.bmp")
    os.symlink(folder / "nowhere.png", folder / "dangling.png")
    os.mkfifo(folder / "pipe.png")
    result = scan([source(str(folder))])
    assert len(result.pictures) == 3
    assert reasons(result) == {
        "cut.png": f"truncated: the picture goes on after the end of the file ({len(whole) // 2:,} bytes)",
        "empty.jpg": "empty file",
        "text.png": "not an image",
        "icon.bmp": "too small: 8 x 8 px, each side needs at least 16",
        "dangling.png": "a link to nowhere",
        "pipe.png": "not a regular file",
    }


def test_the_same_content_counts_once(folder: Path, source: Source) -> None:
    shutil.copy(folder / "chelsea.png", folder / "z copy.png")
    (folder / "other").mkdir()
    shutil.copy(folder / "coffee.png", folder / "other" / "c.png")
    result = scan([source(str(folder)), source(str(folder / "other"))])
    assert names(result, folder) == ["astronaut.png", "chelsea.png", "coffee.png"]
    assert reasons(result)["z copy.png"] == f"same content as {folder / 'chelsea.png'}"
    assert [r.path.name for r in result.rejected] == ["c.png", "z copy.png", "c.png"]


def test_links_to_pictures_and_folders_are_followed_but_not_in_circles(
    tmp_path: Path, folder: Path, source: Source, photos: Photos
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    photos["rocket"].save(elsewhere / "rocket.png")
    os.symlink(elsewhere, folder / "linked")
    os.symlink(folder, folder / "circle")
    result = scan([source(str(folder))])
    assert names(result, folder) == ["astronaut.png", "chelsea.png", "coffee.png", "linked/rocket.png"]


@pytest.mark.parametrize(
    "name", ["été à la mer.png", "猫 🐈.png", "a\nb.png", "\x1b[31mred.png", "-rf.png", "%s{0}.png", "'\"$(ls).png"]
)
def test_strange_names_are_fine(tmp_path: Path, source: Source, photos: Photos, name: str) -> None:
    photos["rocket"].save(tmp_path / name)
    (tmp_path / name).with_suffix(".txt").write_text("a rocket")
    (tmp_path / f"broken {name}").write_bytes(b"")
    result = scan([source(str(tmp_path))])
    assert [p.caption for p in result.pictures] == ["a rocket"]
    (tmp_path / name).unlink()
    with pytest.raises(DataError) as caught:
        scan([source(str(tmp_path))])
    assert caught.value.message.isprintable()


def test_a_name_that_is_no_utf8_is_fine(tmp_path: Path, source: Source, photos: Photos) -> None:
    home = os.fsencode(tmp_path)
    photos["rocket"].save(tmp_path / "rocket.png")
    os.rename(tmp_path / "rocket.png", home + b"/caf\xe9.png")
    shutil.copy(home + b"/caf\xe9.png", home + b"/copy.png")
    result = scan([source(str(tmp_path))])
    assert len(result.pictures) == 1
    assert result.rejected[0].reason == f"same content as {tmp_path}/caf\\udce9.png"


def test_the_fingerprint_follows_contents_and_captions_not_names(folder: Path, source: Source, photos: Photos) -> None:
    sources = [source(str(folder))]
    before = scan(sources).fingerprint
    moved = folder.rename(folder.with_name("moved"))
    sources = [source(str(moved))]
    assert scan(sources).fingerprint == before
    (moved / "coffee.txt").write_text("a cup of tea")
    captioned = scan(sources).fingerprint
    photos["rocket"].save(moved / "coffee.png")
    assert len({before, captioned, scan(sources).fingerprint}) == 3


def test_progress_counts_every_file_and_may_end_the_scan(folder: Path, source: Source) -> None:
    (folder / "broken.png").write_bytes(b"")
    seen: list[tuple[int, int, str]] = []
    scan([source(str(folder))], on_progress=lambda *step: seen.append(step))
    assert seen == [(n, 4, "pictures") for n in (1, 2, 3, 4)]

    def stop(done: int, total: int, what: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scan([source(str(folder))], on_progress=stop)


def message(*sources: Any) -> str:
    with pytest.raises(DataError) as caught:
        scan(sources)
    return caught.value.message


def test_a_missing_folder_is_named(tmp_path: Path, source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    assert f"{tmp_path / 'photos'} does not exist" in message(source(str(tmp_path / "photos")))
    monkeypatch.chdir(tmp_path)
    assert f"relative to {tmp_path}" in message(source("photos"))
    assert "no folder given" in message()


def test_a_file_in_place_of_a_folder_is_named(folder: Path, source: Source) -> None:
    assert f"{folder / 'coffee.png'} is a file" in message(source(str(folder / "coffee.png")))


@pytest.mark.parametrize("path", ["x" * 300, "nul\0byte"])
def test_an_impossible_path_is_a_data_error(source: Source, path: str) -> None:
    assert message(source(path)).startswith("dataset: ")


def test_a_folder_without_pictures_says_what_is_in_it(tmp_path: Path, folder: Path, source: Source) -> None:
    home = tmp_path / "phone"
    home.mkdir()
    assert "holds no pictures (looked for .png .jpg .jpeg .webp .bmp" in message(source(str(home)))
    (home / "IMG_1.txt").write_text("a cat")
    assert "1 .txt file only" in message(source(str(home)))
    for name in ("IMG_1.HEIC", "IMG_2.heic", "IMG_3.heic", "clip.mov"):
        (home / name).write_bytes(b"x")
    text = message(source(str(folder)), source(str(home)))
    assert str(home) in text
    assert "3 .heic files, 1 .mov file, which are not supported (convert them" in text


def test_pictures_of_formats_that_are_not_read_are_named_beside_those_that_are(folder: Path, source: Source) -> None:
    for name in ("phone.HEIC", "scan.tif", "more.zip", "clip.mov", "notes.md"):
        (folder / name).write_bytes(b"x")
    result = scan([source(str(folder))])
    assert len(result.pictures) == 3
    assert reasons(result) == {
        "more.zip": "ZIP files are not read (unpack them to picture files)",
        "phone.HEIC": "HEIC files are not read (convert them to PNG or JPEG)",
        "scan.tif": "TIF files are not read (convert them to PNG or JPEG)",
    }


def test_captions_without_a_picture_are_named(folder: Path, source: Source) -> None:
    """A name that differs leaves a picture without its caption, and nobody would know why."""
    (folder / "coffee.txt").rename(folder / "Coffee.txt")
    (folder / "phone.heic").write_bytes(b"x")  # left out with its own reason
    (folder / "phone.txt").write_text("a phone")
    (folder / "README.txt").write_text("my photographs")
    (folder / "gone.txt").write_text("a cat")
    result = scan([source(str(folder))])
    assert result.notices == ("no picture beside the caption file: 2 files (Coffee.txt, gone.txt)",)
    assert scan([source(str(folder), caption_extension=".caption")]).notices == ()


def test_when_every_picture_is_broken_five_reasons_are_given(tmp_path: Path, source: Source) -> None:
    for number in range(7):
        (tmp_path / f"{number}.png").write_bytes(b"")
    text = message(source(str(tmp_path)))
    assert str(tmp_path) in text
    assert text.count("empty file") == 5
    assert "4.png: empty file and 2 more" in text


def test_a_caption_that_cannot_be_read_is_an_error(folder: Path, source: Source) -> None:
    (folder / "coffee.txt").write_bytes(b"\xff\xfe\x00")
    assert str(folder / "coffee.txt") in message(source(str(folder)))


@pytest.fixture
def open_folder(photos: Photos) -> Iterator[Path]:
    """A folder that any user can reach, which tmp_path is not."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        photos["rocket"].save(Path(name, "fine.png"))
        photos["coffee"].save(Path(name, "locked.png"))
        Path(name, "closed").mkdir()
        photos["chelsea"].save(Path(name, "closed", "a.png"))
        yield Path(name)


@pytest.fixture
def ordinary_user() -> Iterator[None]:
    """Root may read everything, so take the rights away for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_what_may_not_be_read_is_left_out(open_folder: Path, source: Source, request: pytest.FixtureRequest) -> None:
    os.chmod(open_folder / "locked.png", 0)
    os.chmod(open_folder / "closed", 0)
    request.getfixturevalue("ordinary_user")
    result = scan([source(str(open_folder))])
    assert names(result, open_folder) == ["fine.png"]
    assert reasons(result) == {
        "locked.png": "cannot be read: permission denied",
        "closed": "folder cannot be read: permission denied",
    }


def test_a_folder_that_may_not_be_read_is_an_error(
    open_folder: Path, source: Source, request: pytest.FixtureRequest
) -> None:
    os.chmod(open_folder / "closed", 0)
    request.getfixturevalue("ordinary_user")
    for path in (open_folder / "closed", open_folder / "closed" / "below"):
        assert f"{path} cannot be read: permission denied" in message(source(str(path)))


def test_scanning_never_imports_torch() -> None:
    code = (
        "import sys, acrf_engine.data.scan, acrf_engine.data.captions, acrf_engine.data.buckets; "
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

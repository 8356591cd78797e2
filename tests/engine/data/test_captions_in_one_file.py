"""Captions of many pictures in one file, and the layout of Hugging Face's imagefolder."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from acrf_engine.data.scan import DataError, Scan, scan

Photos = dict[str, Image.Image]
Source = Callable[..., Any]


def write_jsonl(file: Path, *entries: dict[str, Any]) -> Path:
    file.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
    return file


def captions(result: Scan) -> dict[str, str]:
    return {picture.path.name: picture.caption for picture in result.pictures}


@pytest.fixture
def bare(folder: Path) -> Path:
    """Three photographs without captions: astronaut, chelsea, coffee."""
    for text in folder.glob("*.txt"):
        text.unlink()
    return folder


@pytest.mark.parametrize("key", ["text", "caption"])
def test_metadata_jsonl_gives_the_captions(bare: Path, source: Source, key: str) -> None:
    names = ("coffee", "astronaut", "chelsea")
    write_jsonl(bare / "metadata.jsonl", *({"file_name": f"{n}.png", key: f"  the\n{n} "} for n in names))
    result = scan([source(str(bare))], trigger="sks")
    assert captions(result) == {f"{n}.png": f"sks, the {n}" for n in names}
    assert {picture.caption_from for picture in result.pictures} == {"captions file"}
    assert result.rejected == ()
    assert result.notices == ()


def test_metadata_csv_gives_the_captions(bare: Path, source: Source) -> None:
    (bare / "metadata.csv").write_text(
        '\ufefffile_name,score,text\nastronaut.png,1,a woman\nchelsea.png,2,"a cat, near"\ncoffee.png,3,a cup\n'
    )
    assert captions(scan([source(str(bare))])) == {
        "astronaut.png": "a woman", "chelsea.png": "a cat, near", "coffee.png": "a cup",
    }  # fmt: skip


def test_a_folder_of_splits_has_a_file_in_each(bare: Path, source: Source, photos: Photos) -> None:
    """As `load_dataset("imagefolder")` reads it: names are relative to the folder of their file."""
    for split in ("train", "validation"):
        (bare / split).mkdir()
    (bare / "coffee.png").rename(bare / "train" / "1.png")
    (bare / "chelsea.png").rename(bare / "validation" / "1.png")
    write_jsonl(bare / "train" / "metadata.jsonl", {"file_name": "1.png", "text": "a cup"})
    write_jsonl(bare / "validation" / "metadata.jsonl", {"file_name": "1.png", "text": "a cat"})
    write_jsonl(bare / "metadata.jsonl", {"file_name": "astronaut.png", "text": "a woman"})
    result = scan([source(str(bare))])
    assert result.notices == (
        f"{bare}: the splits train, validation are all trained on (give the folder of one as path)",
    )
    found = {p.path.relative_to(bare).as_posix(): p.caption for p in result.pictures}
    assert found == {"astronaut.png": "a woman", "train/1.png": "a cup", "validation/1.png": "a cat"}


def test_a_captions_file_may_lie_elsewhere_and_replaces_those_in_the_folder(
    bare: Path, tmp_path: Path, source: Source
) -> None:
    write_jsonl(bare / "metadata.jsonl", {"file_name": "coffee.png", "text": "not this"})
    file = write_jsonl(tmp_path / "mine.jsonl", {"file_name": "coffee.png", "text": "a cup"})
    result = scan([source(str(bare), captions=str(file), default_caption="a photo")])
    assert captions(result) == {"astronaut.png": "a photo", "chelsea.png": "a photo", "coffee.png": "a cup"}


def test_the_text_file_beside_a_picture_counts_first_and_that_is_said(bare: Path, source: Source) -> None:
    (bare / "coffee.txt").write_text("a cup of tea")
    (bare / "chelsea.txt").write_text("a cat")
    write_jsonl(
        bare / "metadata.jsonl",
        {"file_name": "coffee.png", "text": "a cup"},
        {"file_name": "chelsea.png", "text": "a cat"},
        {"file_name": "astronaut.png", "text": "a woman"},
    )
    result = scan([source(str(bare))])
    assert captions(result)["coffee.png"] == "a cup of tea"
    assert result.notices == ("the text file beside the picture counts, not the captions file: 1 picture (coffee.png)",)


def test_entries_and_pictures_without_each_other_are_reported_by_name(bare: Path, source: Source) -> None:
    file = write_jsonl(
        bare / "metadata.jsonl",
        {"file_name": "coffee.png", "text": "a cup"},
        {"file_name": "gone.png", "text": "nothing"},
        {"file_name": "chelsea.png", "text": ""},
    )
    result = scan([source(str(bare), default_caption="a photo")])
    assert [(r.path.name, r.reason) for r in result.rejected] == [
        ("gone.png", f"named in {file}:2, but no such picture")
    ]
    assert result.notices == ("no caption in the captions file: 2 pictures (astronaut.png, chelsea.png)",)
    assert captions(result) == {"astronaut.png": "a photo", "chelsea.png": "a photo", "coffee.png": "a cup"}


def test_names_match_however_they_are_composed(bare: Path, source: Source) -> None:
    (bare / "coffee.png").rename(bare / unicodedata.normalize("NFD", "café.png"))
    write_jsonl(bare / "metadata.jsonl", {"file_name": "./café.png", "text": "a cup"})
    result = scan([source(str(bare))])
    assert "a cup" in captions(result).values()
    assert result.rejected == ()


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("metadata.jsonl", '{"file_name": "coffee.png", "text": "a"}\n{oops\n', ":2: not JSON"),
        ("metadata.jsonl", '\n["coffee.png"]\n', ":2: expected an object"),
        ("metadata.jsonl", '{"text": "a"}\n', ":1: file_name: expected the name of a picture, got nothing"),
        ("metadata.jsonl", '{"file_name": "coffee.png", "label": 3}\n', ":1: no `text` or `caption`"),
        ("metadata.jsonl", '{"file_name": "coffee.png", "text": 7}\n', ":1: text: expected text, got 7"),
        (
            "metadata.jsonl",
            '{"file_name": "coffee.png", "text": "a"}\n{"file_name": "coffee.png", "text": "b"}\n',
            ":2: coffee.png has another caption in",
        ),
        ("metadata.jsonl", json.dumps({"file_name": "coffee.png", "text": "x" * 70_000}), ":1: text: longer than"),
        ("metadata.csv", "coffee.png,a cup\n", ":1: no column file_name"),
        ("metadata.csv", "file_name,text\ncoffee.png,a cup, hot\n", ":2: more values than columns"),
        ("metadata.csv", "", ":1: no column file_name"),
    ],
)
def test_what_cannot_be_read_is_an_error_with_file_and_line(
    bare: Path, source: Source, name: str, text: str, says: str
) -> None:
    (bare / name).write_text(text)
    with pytest.raises(DataError) as caught:
        scan([source(str(bare))])
    assert f"{bare / name}{says}" in caught.value.message


def test_a_file_that_is_no_utf8_is_an_error(bare: Path, source: Source) -> None:
    (bare / "metadata.jsonl").write_bytes(b'{"file_name": "caf\xe9.png", "text": "a"}')
    with pytest.raises(DataError, match=r"metadata\.jsonl: not UTF-8 text"):
        scan([source(str(bare))])


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "nul\0.png", "x" * 5000])
def test_a_name_outside_the_folder_is_only_a_name(bare: Path, source: Source, name: str) -> None:
    write_jsonl(bare / "metadata.jsonl", {"file_name": name, "text": "a"})
    result = scan([source(str(bare))])
    assert len(result.pictures) == 3
    assert len(result.rejected) == 1


def test_captions_with_another_suffix(folder: Path, source: Source) -> None:
    (folder / "coffee.txt").rename(folder / "coffee.caption")
    result = scan([source(str(folder), caption_extension=".caption")])
    assert [picture.caption for picture in result.pictures] == ["", "", "a photo of coffee"]


def test_the_prefix_stands_between_trigger_and_caption(folder: Path, source: Source) -> None:
    (folder / "coffee.txt").unlink()
    result = scan([source(str(folder), prefix="in  ink:", default_caption="a thing")], trigger="sks")
    assert captions(result)["chelsea.png"] == "sks, in ink: a photo of chelsea"
    assert captions(result)["coffee.png"] == "sks, in ink: a thing"


def test_a_packed_data_set_says_what_to_do(tmp_path: Path, source: Source) -> None:
    (tmp_path / "train-00000-of-00001.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"1 \.parquet file, which are not supported \(unpack them to picture files\)"):
        scan([source(str(tmp_path))])

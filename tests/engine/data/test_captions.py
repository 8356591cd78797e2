from __future__ import annotations

from pathlib import Path

import pytest

from acrf_engine.data.captions import read_caption, with_trigger
from acrf_engine.data.errors import DataError


@pytest.mark.parametrize(
    ("data", "caption"),
    [
        (b"a cat", "a cat"),
        (b"\xef\xbb\xbfa cat with a mark in front", "a cat with a mark in front"),
        (b"  a cat,\r\n\r\non\ta   mat \n", "a cat, on a mat"),
        ("une tasse de café, 猫 🐈".encode(), "une tasse de café, 猫 🐈"),
        (b"", None),
        (b" \n\t\n", None),
        (b"\xef\xbb\xbf", None),
        (b"x" * 65_536, "x" * 65_536),
    ],
)
def test_the_caption_is_the_text_file_beside_the_picture(tmp_path: Path, data: bytes, caption: str | None) -> None:
    (tmp_path / "photo.txt").write_bytes(data)
    assert read_caption(tmp_path / "photo.jpg") == caption


def test_only_the_last_suffix_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "holiday.2024.txt").write_text("a beach")
    (tmp_path / "holiday.txt").write_text("not this")
    assert read_caption(tmp_path / "holiday.2024.png") == "a beach"


def test_a_caption_from_a_camera_card_in_capitals_is_found(tmp_path: Path) -> None:
    (tmp_path / "IMG_0001.TXT").write_text("a bridge")
    assert read_caption(tmp_path / "IMG_0001.JPG") == "a bridge"


def test_a_missing_caption_is_none_and_so_is_a_folder_of_that_name(tmp_path: Path) -> None:
    assert read_caption(tmp_path / "photo.jpg") is None
    (tmp_path / "photo.txt").mkdir()
    assert read_caption(tmp_path / "photo.jpg") is None


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("café".encode("latin-1"), "UTF-8"),
        ("a cat".encode("utf-16"), "UTF-16"),
        ("a cat".encode("utf-16-le"), "NUL"),
        (b"x" * 65_537, "65,537 bytes"),
    ],
)
def test_a_caption_that_is_not_text_is_an_error_that_names_the_file(tmp_path: Path, data: bytes, says: str) -> None:
    (tmp_path / "photo.txt").write_bytes(data)
    with pytest.raises(DataError) as caught:
        read_caption(tmp_path / "photo.jpg")
    assert str(tmp_path / "photo.txt") in caught.value.message
    assert says in caught.value.message


@pytest.mark.parametrize(
    ("caption", "trigger", "result"),
    [
        ("a cat on a mat", "sks", "sks, a cat on a mat"),
        ("", "sks", "sks"),
        ("a cat", "", "a cat"),
        ("a photo of SKS on a mat", "sks", "a photo of SKS on a mat"),
        ("a photo of sks.", "sks", "a photo of sks."),
        ("asks a question", "sks", "sks, asks a question"),
        ("in the style of (v1.0)", "(v1.0)", "in the style of (v1.0)"),
        ("v1x0", "v1.0", "v1.0, v1x0"),
        ("a mein Stil picture", " mein\n stil ", "a mein Stil picture"),
        ("ÉMILE smiles", "émile", "ÉMILE smiles"),
    ],
)
def test_the_trigger_word_is_added_once(caption: str, trigger: str, result: str) -> None:
    assert with_trigger(caption, trigger) == result
    assert with_trigger(result, trigger) == result

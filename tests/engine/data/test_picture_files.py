from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from acrf_engine.data.errors import PictureError
from acrf_engine.data.pictures import PictureFacts, inspect, load_rgb

Photos = dict[str, Image.Image]
ORIENTATION = 0x0112


def difference(a: Image.Image, b: Image.Image) -> float:
    """Mean absolute difference, in levels of 255."""
    assert a.size == b.size
    return float(np.abs(np.asarray(a, dtype=float) - np.asarray(b, dtype=float)).mean())


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def raw_png(width: int, height: int, bits: int, colour: int, rows: bytes, *extra: tuple[bytes, bytes]) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks)


@pytest.mark.parametrize(
    ("name", "options", "tolerance"),
    [
        ("a.png", {}, 0),
        ("a.bmp", {}, 0),
        ("a.webp", {"lossless": True}, 0),
        ("a.webp", {"quality": 95}, 4),
        ("a.jpg", {"quality": 95}, 4),
        ("a.JPEG", {"quality": 95, "progressive": True}, 4),
    ],
)
def test_every_supported_format_gives_the_same_photograph(
    tmp_path: Path, photos: Photos, name: str, options: dict[str, object], tolerance: float
) -> None:
    file = tmp_path / name
    photos["coffee"].save(file, **options)
    assert load_rgb(file).mode == "RGB"
    assert difference(load_rgb(file), photos["coffee"]) <= tolerance
    facts = inspect(file)
    assert (facts.width, facts.height) == photos["coffee"].size


def test_cmyk_jpeg_keeps_its_colours(tmp_path: Path, photos: Photos) -> None:
    photos["astronaut"].convert("CMYK").save(tmp_path / "print.jpg", quality=95)
    assert Image.open(tmp_path / "print.jpg").mode == "CMYK"
    assert difference(load_rgb(tmp_path / "print.jpg"), photos["astronaut"]) < 5


def test_greyscale_and_black_and_white_become_rgb(tmp_path: Path, photos: Photos) -> None:
    for mode in ("L", "1"):
        grey = photos["rocket"].convert(mode)
        grey.save(tmp_path / f"{mode}.png")
        assert difference(load_rgb(tmp_path / f"{mode}.png"), grey.convert("RGB")) == 0


def test_16_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 256).round().astype(np.uint16)
    Image.fromarray(np.tile(ramp, (32, 1))).save(tmp_path / "scan.png")
    row = np.asarray(load_rgb(tmp_path / "scan.png"))[0, :, 0]
    assert row.tolist() == list(range(256))


def test_16_bit_colour_is_scaled_not_clipped(tmp_path: Path) -> None:
    row = b"\0" + np.repeat(np.arange(0, 65536, 257, dtype=">u2"), 3).tobytes()
    (tmp_path / "scan.png").write_bytes(raw_png(256, 16, 16, 2, row * 16))
    got = np.asarray(load_rgb(tmp_path / "scan.png"))[0, :, 0].astype(int)
    assert np.abs(got - np.arange(256)).max() <= 1


def test_16_bit_grey_with_a_transparent_level_lies_on_white(tmp_path: Path) -> None:
    row = b"\0" + np.array([1000] * 16 + [30000] * 16, dtype=">u2").tobytes()
    transparent = (b"tRNS", struct.pack(">H", 1000))
    (tmp_path / "scan.png").write_bytes(raw_png(32, 16, 16, 0, row * 16, transparent))
    pixels = np.asarray(load_rgb(tmp_path / "scan.png"))[0, :, 0]
    assert pixels[0] == 255
    assert pixels[31] == round(30000 / 257)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparency_lies_on_white(tmp_path: Path, photos: Photos, mode: str) -> None:
    picture = photos["chelsea"].convert("RGBA")
    alpha = np.full((picture.height, picture.width), 255, np.uint8)
    alpha[:, :50] = 0
    alpha[:, 50:60] = 128
    picture.putalpha(Image.fromarray(alpha))
    file = tmp_path / "cut.png"
    if mode == "PA":
        picture.quantize(200).save(file)
    else:
        picture.convert(mode).save(file)
    got = np.asarray(load_rgb(file)).astype(float)
    assert (got[:, :50] == 255).all()
    expected = np.asarray(photos["chelsea"].convert("L" if mode == "LA" else "RGB").convert("RGB")).astype(float)
    assert np.abs(got[:, 60:] - expected[:, 60:]).mean() < 12
    half = expected[:, 50:60] * 128 / 255 + 255 * 127 / 255
    assert np.abs(got[:, 50:60] - half).mean() < 12


def test_palette_with_one_transparent_colour_lies_on_white(tmp_path: Path) -> None:
    picture = Image.new("P", (32, 32), 1)
    picture.putpalette([10, 20, 30, 200, 100, 50])
    picture.paste(0, (0, 0, 16, 32))
    picture.save(tmp_path / "logo.png", transparency=0)
    got = load_rgb(tmp_path / "logo.png")
    assert got.getpixel((2, 2)) == (255, 255, 255)
    assert got.getpixel((30, 2)) == (200, 100, 50)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
def test_a_rotated_phone_picture_is_upright(tmp_path: Path, photos: Photos, orientation: int, kind: str) -> None:
    upright = photos["coffee"]
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    file = tmp_path / f"phone.{kind}"
    stored.save(file, exif=exif, quality=95)
    assert difference(load_rgb(file), upright) < 5
    facts = inspect(file)
    assert (facts.width, facts.height) == upright.size


@pytest.mark.parametrize("value", [0, 9, 60_000])
def test_a_nonsense_orientation_counts_as_upright(tmp_path: Path, photos: Photos, value: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = value
    photos["rocket"].save(tmp_path / "odd.jpg", exif=exif)
    assert load_rgb(tmp_path / "odd.jpg").size == photos["rocket"].size


def test_a_rubbish_exif_block_does_not_cost_the_picture(tmp_path: Path, photos: Photos) -> None:
    photos["rocket"].save(tmp_path / "odd.jpg", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff" + b"\x01" * 20)
    assert inspect(tmp_path / "odd.jpg").width == photos["rocket"].width
    assert load_rgb(tmp_path / "odd.jpg").size == photos["rocket"].size


@pytest.mark.parametrize(("name", "kind"), [("a.webp", "WEBP"), ("a.png", "PNG"), ("really a gif.png", "GIF")])
def test_of_an_animation_the_first_frame_is_used(tmp_path: Path, photos: Photos, name: str, kind: str) -> None:
    frames = [photos["coffee"], photos["coffee"].point(lambda level: 255 - level)]
    frames[0].save(tmp_path / name, kind, save_all=True, append_images=frames[1:], duration=100)
    assert difference(load_rgb(tmp_path / name), photos["coffee"]) < 8
    assert inspect(tmp_path / name).height == photos["coffee"].height


def test_a_phone_jpeg_with_a_second_picture_inside_is_read(tmp_path: Path, photos: Photos) -> None:
    first = photos["coffee"]
    first.save(tmp_path / "phone.jpg", "MPO", save_all=True, append_images=[photos["rocket"]], quality=95)
    assert difference(load_rgb(tmp_path / "phone.jpg"), first) < 5
    assert (inspect(tmp_path / "phone.jpg").width, inspect(tmp_path / "phone.jpg").height) == first.size


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9])
@pytest.mark.parametrize(
    ("kind", "options"), [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("WEBP", {}), ("BMP", {})]
)
@pytest.mark.parametrize("read", [inspect, load_rgb])
def test_half_a_file_is_truncated(
    tmp_path: Path,
    photos: Photos,
    kind: str,
    options: dict[str, object],
    keep: float,
    read: Callable[[Path], PictureFacts | Image.Image],
) -> None:
    data = encoded(photos["astronaut"], kind, **options)
    (tmp_path / "photo.jpg").write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(PictureError, match="truncated"):
        read(tmp_path / "photo.jpg")


def test_a_truncated_webp_says_how_much_is_there(tmp_path: Path, photos: Photos) -> None:
    data = encoded(photos["astronaut"], "WEBP")
    (tmp_path / "photo.webp").write_bytes(data[:2000])
    with pytest.raises(PictureError) as caught:
        inspect(tmp_path / "photo.webp")
    assert caught.value.reason == f"truncated: 2,000 of {len(data):,} bytes"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
def test_no_cut_of_a_file_gives_anything_but_a_reason(tmp_path: Path, photos: Photos, kind: str) -> None:
    data = encoded(photos["astronaut"].resize((48, 48)), kind)
    file = tmp_path / "photo.png"
    for end in [*range(64), *range(64, len(data) - 64, 97)]:
        file.write_bytes(data[:end])
        with pytest.raises(PictureError) as caught:
            inspect(file)
        assert 0 < len(caught.value.reason) < 140
        assert "\n" not in caught.value.reason


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty file"),
        (b"just some text, renamed", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n", "not an image"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"II*\0\x08\0\0\0", "TIFF"),
        (b"\xff\xd8\xff\xe0" + b"\0" * 40, "damaged"),
    ],
)
def test_a_file_that_is_no_picture_has_its_reason(tmp_path: Path, data: bytes, says: str) -> None:
    (tmp_path / "photo.png").write_bytes(data)
    with pytest.raises(PictureError, match=says):
        inspect(tmp_path / "photo.png")


def test_other_formats_under_a_picture_name_stay_shut(tmp_path: Path, photos: Photos) -> None:
    for kind in ("TIFF", "PPM", "EPS"):
        (tmp_path / "photo.png").write_bytes(encoded(photos["rocket"], kind))
        with pytest.raises(PictureError, match="not a"):
            inspect(tmp_path / "photo.png")


@pytest.mark.parametrize(("side", "megapixels"), [(13_300, "176.9"), (8_001, "64.0"), (60_000, "3,600.0")])
@pytest.mark.parametrize("read", [inspect, load_rgb])
@pytest.mark.filterwarnings("error")
def test_a_huge_picture_is_refused_by_its_header(
    tmp_path: Path, side: int, megapixels: str, read: Callable[[Path], PictureFacts | Image.Image]
) -> None:
    (tmp_path / "bomb.png").write_bytes(raw_png(side, side, 8, 2, b""))
    with pytest.raises(PictureError) as caught:
        read(tmp_path / "bomb.png")
    assert f"{megapixels} megapixels" in caught.value.reason
    assert "at most 64" in caught.value.reason


@pytest.mark.parametrize("size", [(15, 400), (400, 15), (1, 1)])
def test_a_tiny_picture_is_refused_with_its_size(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("RGB", size).save(tmp_path / "icon.png")
    with pytest.raises(PictureError, match=f"{size[0]} x {size[1]} px"):
        inspect(tmp_path / "icon.png")


def test_a_picture_that_changed_since_the_scan_is_not_loaded(tmp_path: Path, photos: Photos) -> None:
    file = tmp_path / "photo.png"
    photos["rocket"].save(file)
    sha256 = inspect(file).sha256
    assert load_rgb(file, sha256).size == photos["rocket"].size
    photos["coffee"].save(file)
    with pytest.raises(PictureError, match="changed"):
        load_rgb(file, sha256)

"""Picture files: what they are, whether they are whole, and their pixels as RGB."""

from __future__ import annotations

import hashlib
import io
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

# WebP by name: Pillow registers it only after it has failed with the formats it knows from the start.
from PIL import Image, UnidentifiedImageError, WebPImagePlugin

from acrf_engine.data.errors import PictureError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
MAX_PIXELS = 64_000_000
MAX_BYTES = 1 << 30
MIN_SIDE = 16

# By content, whatever the suffix says. JPEG includes the MPO files of many phones; GIF turns up under other names. All
# other formats stay shut: some of Pillow's readers start external programs.
_FORMATS = ("PNG", "JPEG", WebPImagePlugin.WebPImageFile.format, "BMP", "GIF")
_SIXTEEN_BIT = ("I", "I;16", "I;16L", "I;16B", "I;16N")
_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_warning_filters = threading.Lock()


@dataclass(frozen=True)
class PictureFacts:
    """A whole picture file: sha256 of its bytes; width and height in pixels as a viewer shows it."""

    sha256: str
    width: int
    height: int


def inspect(path: Path) -> PictureFacts:
    """Decode `path` once to prove that it is whole. Raises PictureError with a short reason when it is not."""
    with _reasons(path), path.open("rb") as file:
        with _open(path, file) as image:
            width, height = image.size
            # Only JPEG can do this: the data is read to its end, but an eighth of the pixels is computed.
            image.draft(image.mode, (width // 8, height // 8))
            image.load()
            if _orientation(image) >= 5:
                width, height = height, width
        file.seek(0)
        return PictureFacts(hashlib.file_digest(file, "sha256").hexdigest(), width, height)


def load_rgb(path: Path, sha256: str | None = None) -> Image.Image:
    """Return the picture upright, as 8-bit RGB; transparent parts lie on white, of an animation it is the first frame.

    With `sha256` the file must still have that content. Raises PictureError when it has not, or cannot be decoded.
    """
    rgb: Image.Image = _load(path, sha256, _rgb)
    return rgb


def load_alpha(path: Path, sha256: str | None = None) -> Image.Image | None:
    """Return how opaque the picture is, upright, as 8-bit grey; None where the file says nothing of transparency.

    Arguments and errors are those of `load_rgb`.
    """
    opaque: Image.Image | None = _load(path, sha256, _alpha)
    return opaque


def _load(path: Path, sha256: str | None, convert: Callable[[Image.Image], Any]) -> Any:
    with _reasons(path):
        data = path.read_bytes()
        if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
            raise PictureError(path, "changed since it was scanned; start again")
        with _open(path, io.BytesIO(data)) as image:
            image.load()
            converted = convert(image)
            transpose = _UPRIGHT.get(_orientation(image))
        return converted if transpose is None or converted is None else converted.transpose(transpose)


def _open(path: Path, file: BinaryIO) -> Image.Image:
    """Open the picture and judge the size in its header, before any pixel takes memory."""
    length = file.seek(0, io.SEEK_END)
    if length == 0:
        raise PictureError(path, "empty file")
    if length > MAX_BYTES:
        raise PictureError(path, f"the file has {length:,} bytes; at most {MAX_BYTES:,} are allowed")
    file.seek(0)
    with _quiet():
        image = Image.open(file, formats=_FORMATS)
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise PictureError(path, f"{_too_large(width * height)} ({width:,} x {height:,} px)")
    if min(width, height) < MIN_SIDE:
        raise PictureError(path, f"too small: {width} x {height} px, each side needs at least {MIN_SIDE}")
    return image


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Pillow about odd metadata, and about sizes that our own, stricter limit refuses."""
    # One at a time: the filters belong to the whole process, and pictures are read in several threads.
    with _warning_filters, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _reasons(path: Path) -> Iterator[None]:
    """Turn whatever Pillow and the system raise about `path` into a PictureError with a reason for people."""
    try:
        yield
    except PictureError:
        raise
    except Image.DecompressionBombError as error:
        pixels = re.search(r"\d+", str(error))
        raise PictureError(path, _too_large(int(pixels[0]) if pixels else 0)) from error
    except UnidentifiedImageError as error:
        raise PictureError(path, _unidentified(path)) from error
    except MemoryError as error:
        raise PictureError(path, "too large for the memory that is free") from error
    except OSError as error:
        # Pillow raises OSError for broken data, but then without an errno.
        reason = f"cannot be read: {error.strerror.lower()}" if error.strerror else _damage(path, error)
        raise PictureError(path, reason) from error
    except Exception as error:  # Pillow's readers raise SyntaxError, struct.error, zlib.error, ... on broken data
        raise PictureError(path, _damage(path, error)) from error


def _too_large(pixels: int) -> str:
    return f"too large: {pixels / 1e6:,.1f} megapixels, at most {MAX_PIXELS // 1_000_000} are allowed"


def _unidentified(path: Path) -> str:
    head, size = _head(path)
    known = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF", b"BM", b"GIF8")
    if head.startswith(known):
        return f"damaged or truncated: its header cannot be read ({size:,} bytes)"
    if head[4:8] == b"ftyp":
        return "not a PNG, JPEG, WebP or BMP picture (HEIC, AVIF or video data; convert it)"
    if head[:4] in (b"II*\0", b"MM\0*"):
        return "not a PNG, JPEG, WebP or BMP picture (TIFF data; convert it)"
    return "not an image"


def _damage(path: Path, error: Exception) -> str:
    head, size = _head(path)
    declared = 0
    if head[:4] == b"RIFF":
        declared = int.from_bytes(head[4:8], "little") + 8
    elif head[:2] == b"BM":
        declared = int.from_bytes(head[2:6], "little")
    if declared > size:
        return f"truncated: {size:,} of {declared:,} bytes"
    if "truncated" in str(error).lower():
        return f"truncated: the picture goes on after the end of the file ({size:,} bytes)"
    return f"damaged: {str(error)[:80] or type(error).__name__}"


def _head(path: Path) -> tuple[bytes, int]:
    """Return the first bytes and the size of a file that was open a moment ago."""
    try:
        with path.open("rb") as file:
            return file.read(16), file.seek(0, io.SEEK_END)
    except OSError:
        return b"", 0


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; rubbish in the EXIF block counts as upright, as viewers do."""
    try:
        with _quiet():
            value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in _SIXTEEN_BIT:
        image = _eight_bit(image)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _alpha(image: Image.Image) -> Image.Image | None:
    if image.mode in _SIXTEEN_BIT:
        image = _eight_bit(image)
    return image.convert("RGBA").getchannel("A") if image.has_transparency_data else None


def _eight_bit(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey to 8 bit; Pillow's own conversion has clipped at 255 in some versions and shifts in others."""
    levels = np.clip(np.asarray(image).astype(np.int32), 0, 65535)
    grey = Image.fromarray(((levels + 128) // 257).astype(np.uint8))
    see_through = image.info.get("transparency")
    if isinstance(see_through, int):
        grey.putalpha(Image.fromarray(np.where(levels == see_through, 0, 255).astype(np.uint8)))
    return grey

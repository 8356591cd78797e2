"""Masks: where in a picture the loss counts, from its own transparency or from a picture of the same name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from acrf_engine.data.buckets import Size
from acrf_engine.data.errors import PictureError, printable
from acrf_engine.data.folders import list_folder
from acrf_engine.data.pictures import inspect, load_alpha, load_rgb

ALPHA = "alpha"

_CELL = 8
_SHAPE_TOLERANCE = 0.02


@dataclass(frozen=True)
class Mask:
    """A picture's mask: its file (the picture's own for its transparency), that file's sha256, the least weight."""

    path: Path
    sha256: str
    of_alpha: bool
    minimum: float


class MaskFolder:
    """The masks of a source: those in a folder, by the pictures' names, or the pictures' own transparency."""

    def __init__(self, where: str, pictures: Path, minimum: float) -> None:
        """`where` is `alpha` or a folder. Raises DataError when it cannot be read or holds no masks."""
        self.where = where
        self._pictures = pictures
        self._minimum = minimum
        self._masks: dict[Path, Path] = {}
        self.folder = None if where == ALPHA else Path(where)
        if self.folder is not None:
            for path in list_folder(self.folder).paths:
                place = path.relative_to(self.folder)
                self._masks[place] = path
                self._masks.setdefault(place.with_suffix(""), path)

    def of(self, picture: Path, sha256: str, size: Size) -> Mask | None:
        """The mask of a picture of `size` (width, height); None where it has none.

        Raises PictureError when the mask cannot be used.
        """
        if self.folder is None:
            grey = load_alpha(picture)
            return None if grey is None else self._usable(Mask(picture, sha256, True, self._minimum), grey, size)
        place = picture.relative_to(self._pictures)
        path = self._masks.get(place) or self._masks.get(place.with_suffix(""))
        if path is None:
            return None
        try:
            mask = Mask(path, inspect(path).sha256, False, self._minimum)
            return self._usable(mask, _grey(mask), size)
        except PictureError as error:
            raise PictureError(picture, f"its mask {printable(path)} cannot be used: {error.reason}") from error

    def _usable(self, mask: Mask, grey: Image.Image, size: Size) -> Mask:
        (width, height), (mask_width, mask_height) = size, grey.size
        if abs(mask_width * height - mask_height * width) > _SHAPE_TOLERANCE * mask_height * width:
            raise PictureError(mask.path, f"{mask_width}x{mask_height} has not the shape of {width}x{height}")
        if not grey.getextrema()[1] and not mask.minimum:
            raise PictureError(mask.path, "leaves out the whole picture (set mask_min_weight, or remove it)")
        return mask


def coverage(mask: Mask, size: Size) -> NDArray[np.float32]:
    """How much of each latent cell the mask keeps, float32 [H/8, W/8] in [0, 1], for a training size (width, height).

    Resized and cropped as the picture is; a cell has the mean of its pixels. Raises PictureError.
    """
    width, height = size
    cells = ImageOps.fit(_grey(mask), (width // _CELL, height // _CELL), Image.Resampling.BOX)
    return np.asarray(cells, dtype=np.float32) / np.float32(255)


def _grey(mask: Mask) -> Image.Image:
    sha256 = mask.sha256 or None
    if not mask.of_alpha:
        return load_rgb(mask.path, sha256).convert("L")
    alpha = load_alpha(mask.path, sha256)
    if alpha is None:
        raise PictureError(mask.path, "has no transparency any more; start again")
    return alpha

"""Cache: latents and caption embeddings, computed once and kept on disk.

With everything cached neither VAE nor text encoder is loaded, which is most of the start-up time and memory of a run.
Shape letters: C latent channels, H and W sides (of pictures in pixels, of latents in cells of 8 pixels), L caption
tokens, D width of the text encoder.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from acrf_engine.data.buckets import Size, resize_and_crop
from acrf_engine.data.decoding import decoded_ahead
from acrf_engine.data.errors import DataError, printable
from acrf_engine.data.identity import data_parts, uncommon
from acrf_engine.data.masks import Mask, coverage
from acrf_engine.data.mixture import placed
from acrf_engine.data.pictures import load_rgb
from acrf_engine.data.scan import Picture, Progress, Scan
from acrf_engine.data.tensor_files import FORMAT, Cache, Kind

__all__ = ["Cache", "CachedDataset", "Encoder", "Example", "fill"]

VAE_FACTOR = 8

# Part of a latent's key: change it whenever the same file would give other pixels than before.
_PIXELS = "lanczos-centre-1"
_CELLS = "box-centre-1"


class Encoder(Protocol):
    """VAE and text encoder. All captions are encoded before the first picture, so only one need be loaded at a time."""

    @property
    def fingerprint(self) -> str:
        """Hash of everything the outputs depend on: weights and settings."""

    def encode_picture(self, pixels_3HW: Tensor) -> Tensor:
        """Return the latent [C, H/8, W/8] of float32 pixels in [-1, 1], scaled and shifted as the model wants it."""

    def encode_caption(self, text: str) -> Tensor:
        """Return the embedding [L, D] of one caption, without padding."""


@dataclass(frozen=True, eq=False)
class Example:
    """What the model sees of one picture; bucket is (width, height) in pixels, tensors are float32 on the CPU.

    `mask_HW` is the weight of each latent cell in the loss, in [0, 1]; None is 1 everywhere.
    """

    index: int
    picture: Picture
    bucket: Size
    latent_CHW: Tensor
    caption_LD: Tensor
    mirrored_CHW: Tensor | None = None
    mask_HW: Tensor | None = None

    def mirrored(self) -> Example:
        """The picture seen in a mirror. Raises ValueError where its latent is cached one way only."""
        if self.mirrored_CHW is None:
            raise ValueError(f"{printable(self.picture.path)} was not cached both ways")
        mask_HW = None if self.mask_HW is None else self.mask_HW.flip(-1)
        return replace(self, latent_CHW=self.mirrored_CHW, mask_HW=mask_HW)


@dataclass(frozen=True, eq=False)
class CachedDataset:
    """All examples in memory. `captions` has the embedding of every text asked for, the empty one included.

    `fingerprint` identifies exactly what a run trains on: contents, captions, repeats, order, resolution, masks,
    weights and encoder; `parts` the same one by one, by names for people.
    """

    examples: tuple[Example, ...]
    captions: Mapping[str, Tensor]
    fingerprint: str
    parts: Mapping[str, str] = field(default_factory=dict)

    @property
    def pictures(self) -> int:
        """Number of pictures; one that is trained at several sizes has as many examples."""
        return len({example.picture.sha256 for example in self.examples})

    @property
    def without_caption(self) -> int:
        """Number of pictures that have no caption of their own, in a file beside them or one for all."""
        return len({one.picture.sha256 for one in self.examples if not one.picture.has_caption_file})

    @property
    def bucket_counts(self) -> dict[Size, int]:
        """Number of examples in each bucket in use, fullest bucket first."""
        return dict(Counter(example.bucket for example in self.examples).most_common())


def fill(
    scan: Scan,
    resolution: int,
    make_encoder: Callable[[], Encoder],
    fingerprint: str,
    cache: Cache,
    on_progress: Progress | None = None,
    extra_captions: Sequence[str] = (),
    flip: bool = False,
    upscale: bool = False,
) -> CachedDataset:
    """Return every example of `scan` with its tensors, encoding only what the cache lacks.

    A picture is an example at each of its training sizes; see `acrf_engine.data.buckets.training_sizes`.

    `make_encoder` is called only when something is lacking; `fingerprint` is that of the encoder it makes. Besides the
    captions of the pictures, the empty caption and `extra_captions` are embedded; with `flip` every picture is encoded
    mirrored too. `on_progress` counts masks, captions and pictures together, of each kind those in the cache first.
    Raises DataError when a picture or its mask has changed since the scan, when an encoder gives numbers that cannot be
    trained on, and when the cache folder cannot be written.
    """
    texts = list(dict.fromkeys(["", *(p.caption for p in scan.pictures), *extra_captions]))
    pairs = placed(scan.pictures, resolution, upscale)
    text_keys = {text: _key("captions", fingerprint, text) for text in texts}
    views = [_View(picture, size, False) for picture, size in pairs]
    if flip:
        views += [replace(view, mirrored=True) for view in views]
    total = len(texts) + len(views) + sum(picture.mask is not None for picture, _ in pairs)
    done = 0

    def advance(what: str) -> None:
        nonlocal done
        done += 1
        if on_progress is not None:
            on_progress(done, total, what)

    # Masks first: one that cannot be used is known before anything is encoded.
    masks = _masks(pairs, cache, advance)
    captions: dict[str, Tensor] = {}
    for text in texts:
        if (tensor := cache.read("captions", text_keys[text])) is not None:
            captions[text] = tensor
            advance("captions")
    latents: dict[int, Tensor] = {}
    for index, view in enumerate(views):
        if (tensor := cache.read("latents", view.key(fingerprint))) is not None:
            latents[index] = tensor
            advance("pictures")

    if len(captions) < len(texts) or len(latents) < len(views):
        cache.remove_leftovers()
        encoder = make_encoder()
        if encoder.fingerprint != fingerprint:
            raise DataError("the model changed while it was being loaded; start again")
        for text in texts:
            if text not in captions:
                captions[text] = _checked_caption(encoder, text)
                cache.write("captions", text_keys[text], captions[text])
                advance("captions")
        missing = [index for index in range(len(views)) if index not in latents]
        for index, pixels_3HW in zip(missing, decoded_ahead(_pixels, [views[index] for index in missing]), strict=True):
            latents[index] = _checked_latent(encoder, views[index].picture, pixels_3HW)
            cache.write("latents", views[index].key(fingerprint), latents[index])
            advance("pictures")

    return CachedDataset(
        examples=tuple(
            Example(
                index,
                picture,
                size,
                latents[index],
                captions[picture.caption],
                latents[len(pairs) + index] if flip else None,
                masks.get(index),
            )
            for index, (picture, size) in enumerate(pairs)
        ),
        captions=captions,
        fingerprint=_digest(
            [FORMAT, _PIXELS, fingerprint, resolution, scan.fingerprint, *(p.repeats for p in scan.pictures)]
            + (["flip"] if flip else [])
            + uncommon(pairs, resolution)
        ),
        parts={name: _digest([value]) for name, value in data_parts(pairs).items()} | {"encoders": fingerprint},
    )


def _masks(pairs: Sequence[tuple[Picture, Size]], cache: Cache, advance: Callable[[str], None]) -> dict[int, Tensor]:
    """The weight of every latent cell of each example that has a mask, kept in the cache as the latents are."""
    masked = [(index, picture, picture.mask, size) for index, (picture, size) in enumerate(pairs) if picture.mask]
    cells: dict[int, Tensor] = {}
    missing: list[tuple[int, str, Mask, Size]] = []
    for index, _, mask, size in masked:
        key = _key("masks", mask.sha256, int(mask.of_alpha), *size, _CELLS)
        if (tensor := cache.read("masks", key)) is not None:
            cells[index] = tensor
            advance("masks")
        else:
            missing.append((index, key, mask, size))
    kept = decoded_ahead(lambda item: coverage(item[2], item[3]), missing)
    for (index, key, _, _), cells_HW in zip(missing, kept, strict=True):
        cells[index] = torch.from_numpy(cells_HW.copy())
        cache.write("masks", key, cells[index])
        advance("masks")
    for index, picture, mask, (width, height) in masked:
        if not cells[index].any() and not mask.minimum:
            raise DataError(
                f"{printable(picture.path)}: what its mask keeps is cropped away at {width}x{height} "
                "(set mask_min_weight, or crop the picture yourself)"
            )
        cells[index] = cells[index] + mask.minimum * (1 - cells[index])  # in this form 1 stays 1 exactly
    return cells


@dataclass(frozen=True)
class _View:
    """A picture at its training size, as it is or mirrored."""

    picture: Picture
    size: Size
    mirrored: bool

    def key(self, fingerprint: str) -> str:
        side = ["mirrored"] if self.mirrored else []
        return _key("latents", fingerprint, self.picture.sha256, *self.size, _PIXELS, *side)


def _key(kind: Kind, *parts: str | int) -> str:
    return _digest([FORMAT, kind, *parts])


def _digest(parts: Sequence[object]) -> str:
    # JSON keeps ("ab", "c") and ("a", "bc") apart.
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _pixels(view: _View) -> Tensor:
    image: Image.Image = resize_and_crop(load_rgb(view.picture.path, view.picture.sha256), view.size)
    pixels_HW3 = torch.from_numpy(np.array(image, dtype=np.float32))
    if view.mirrored:
        pixels_HW3 = pixels_HW3.flip(1)
    return (pixels_HW3.permute(2, 0, 1) / 127.5 - 1).contiguous()


def _checked_latent(encoder: Encoder, picture: Picture, pixels_3HW: Tensor) -> Tensor:
    with torch.no_grad():
        latent = _plain(encoder.encode_picture(pixels_3HW))
    height, width = (side // VAE_FACTOR for side in pixels_3HW.shape[1:])
    if latent.ndim != 3 or tuple(latent.shape[1:]) != (height, width):
        raise DataError(f"the VAE gave a latent of shape {tuple(latent.shape)}, not (channels, {height}, {width})")
    if not torch.isfinite(latent).all():
        raise DataError(f"{printable(picture.path)}: the VAE gave NaN or infinite numbers (run it in float32)")
    return latent


def _checked_caption(encoder: Encoder, text: str) -> Tensor:
    with torch.no_grad():
        embedding = _plain(encoder.encode_caption(text))
    shown = printable(text[:60])
    if embedding.ndim != 2 or 0 in embedding.shape:
        raise DataError(f"the text encoder gave shape {tuple(embedding.shape)} for {shown!r}, not (tokens, width)")
    if not torch.isfinite(embedding).all():
        raise DataError(f"the text encoder gave NaN or infinite numbers for the caption {shown!r}")
    return embedding


def _plain(tensor: Tensor) -> Tensor:
    # A copy: tensors made under inference_mode cannot take part in training.
    return tensor.detach().to("cpu", torch.float32, copy=True).contiguous()

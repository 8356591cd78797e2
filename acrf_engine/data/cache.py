"""Cache: latents and caption embeddings, computed once and kept on disk.

With everything cached neither VAE nor text encoder is loaded, which is most of the start-up time and memory of a run.
Shape letters: C latent channels, H and W sides (of pictures in pixels, of latents in cells of 8 pixels), L caption
tokens, D width of the text encoder.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from acrf_engine.data.buckets import Size, bucket_for, resize_and_crop
from acrf_engine.data.errors import DataError, printable
from acrf_engine.data.pictures import load_rgb
from acrf_engine.data.scan import Picture, Progress, Scan
from acrf_engine.data.tensor_files import FORMAT, Cache, Kind

__all__ = ["Cache", "CachedDataset", "Encoder", "Example", "fill"]

VAE_FACTOR = 8

# Part of a latent's key: change it whenever the same file would give other pixels than before.
_PIXELS = "lanczos-centre-1"
_DECODED_AHEAD = 2


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
    """What the model sees of one picture; bucket is (width, height) in pixels, tensors are float32 on the CPU."""

    index: int
    picture: Picture
    bucket: Size
    latent_CHW: Tensor
    caption_LD: Tensor
    mirrored_CHW: Tensor | None = None

    def mirrored(self) -> Example:
        """The picture seen in a mirror. Raises ValueError where its latent is cached one way only."""
        if self.mirrored_CHW is None:
            raise ValueError(f"{printable(self.picture.path)} was not cached both ways")
        return replace(self, latent_CHW=self.mirrored_CHW)


@dataclass(frozen=True, eq=False)
class CachedDataset:
    """All examples in memory. `captions` has the embedding of every text asked for, the empty one included.

    `fingerprint` identifies exactly what a run trains on: contents, captions, repeats, order, resolution and encoder.
    """

    examples: tuple[Example, ...]
    captions: Mapping[str, Tensor]
    fingerprint: str

    @property
    def bucket_counts(self) -> dict[Size, int]:
        """Number of pictures in each bucket in use, fullest bucket first."""
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
) -> CachedDataset:
    """Return every example of `scan` with its tensors, encoding only what the cache lacks.

    `make_encoder` is called only when something is lacking; `fingerprint` is that of the encoder it makes. Besides the
    captions of the pictures, the empty caption and `extra_captions` are embedded; with `flip` every picture is encoded
    mirrored too. `on_progress` counts captions and pictures together, those in the cache first. Raises DataError when a
    picture has changed since the scan, when an encoder gives numbers that cannot be trained on, and when the cache
    folder cannot be written.
    """
    texts = list(dict.fromkeys(["", *(p.caption for p in scan.pictures), *extra_captions]))
    sizes = [bucket_for(p.width, p.height, resolution) for p in scan.pictures]
    text_keys = {text: _key("captions", fingerprint, text) for text in texts}
    views = [_View(p, size, False) for p, size in zip(scan.pictures, sizes, strict=True)]
    if flip:
        views += [replace(view, mirrored=True) for view in views]
    total = len(texts) + len(views)
    done = 0

    def advance(what: str) -> None:
        nonlocal done
        done += 1
        if on_progress is not None:
            on_progress(done, total, what)

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

    if done < total:
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
        for index, pixels_3HW in zip(missing, _decode_ahead([views[index] for index in missing]), strict=True):
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
                latents[len(scan.pictures) + index] if flip else None,
            )
            for index, (picture, size) in enumerate(zip(scan.pictures, sizes, strict=True))
        ),
        captions=captions,
        fingerprint=_digest(
            [FORMAT, _PIXELS, fingerprint, resolution, scan.fingerprint, *(p.repeats for p in scan.pictures)]
            + (["flip"] if flip else [])
        ),
    )


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


def _decode_ahead(views: Sequence[_View]) -> Iterator[Tensor]:
    """Yield the pixels of every view in order, decoding the next pictures while one is being encoded."""
    pool = ThreadPoolExecutor(1, thread_name_prefix="decode")
    waiting: list[Future[Tensor]] = []
    try:
        for view in views:
            waiting.append(pool.submit(_pixels, view))
            if len(waiting) > _DECODED_AHEAD:
                yield waiting.pop(0).result()
        while waiting:
            yield waiting.pop(0).result()
    finally:
        pool.shutdown(cancel_futures=True)


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

"""Masks: where the loss counts, from the file to the latent cell."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d

from acrf_engine.data.batches import BatchPlan
from acrf_engine.data.cache import Cache, CachedDataset, fill
from acrf_engine.data.loader import Loader, MicroBatches
from acrf_engine.data.scan import DataError, Scan, scan

Source = Callable[..., Any]


class Pooling:
    """Mean colours for latents."""

    fingerprint = "pooling"

    def encode_picture(self, pixels_3HW: Tensor) -> Tensor:
        return avg_pool2d(pixels_3HW, 8)

    def encode_caption(self, text: str) -> Tensor:
        return torch.ones(1, 2)


def cached(found: Scan, folder: Path, **options: Any) -> CachedDataset:
    return fill(found, 64, Pooling, "pooling", Cache(folder / "cache"), **options)


def half(size: tuple[int, int]) -> Image.Image:
    """White on the left, black on the right."""
    mask = Image.new("L", size, 0)
    mask.paste(255, (0, 0, size[0] // 2, size[1]))
    return mask


@pytest.fixture
def masks(tmp_path: Path, folder: Path) -> Path:
    """Masks of astronaut (in a file of its own format) and chelsea; coffee has none."""
    home = tmp_path / "masks"
    home.mkdir()
    half(Image.open(folder / "astronaut.png").size).convert("RGB").save(home / "astronaut.bmp")
    half(Image.open(folder / "chelsea.png").size).save(home / "chelsea.png")
    return home


def test_masks_are_found_by_name_and_a_missing_one_is_reported(folder: Path, masks: Path, source: Source) -> None:
    result = scan([source(str(folder), masks=str(masks))])
    found = {p.path.stem: p.mask.path.name if p.mask else None for p in result.pictures}
    assert found == {"astronaut": "astronaut.bmp", "chelsea": "chelsea.png", "coffee": None}
    assert result.notices == (f"no mask in {masks}, so the loss counts everywhere: 1 picture (coffee.png)",)


def test_a_mask_folder_inside_the_pictures_holds_no_pictures(folder: Path, masks: Path, source: Source) -> None:
    inside = masks.rename(folder / "masks")
    result = scan([source(str(folder), masks=str(inside))])
    assert [p.path.name for p in result.pictures] == ["astronaut.png", "chelsea.png", "coffee.png"]
    assert sum(p.mask is not None for p in result.pictures) == 2


def test_transparency_is_a_mask_where_it_is_asked_for(folder: Path, source: Source) -> None:
    picture = Image.open(folder / "astronaut.png")
    picture.putalpha(half(picture.size))
    picture.save(folder / "astronaut.png")
    assert all(p.mask is None for p in scan([source(str(folder))]).pictures)
    result = scan([source(str(folder), masks="alpha", mask_min_weight=0.25)])
    assert [p.mask is not None for p in result.pictures] == [True, False, False]
    assert result.notices == ("no transparency, so the loss counts everywhere: 2 pictures (chelsea.png, coffee.png)",)
    mask_HW = cached(result, folder).examples[0].mask_HW
    assert mask_HW is not None
    assert mask_HW[:, :4].eq(1).all()
    assert mask_HW[:, 4:].eq(0.25).all()


def test_a_mask_is_cropped_and_averaged_as_its_picture_is(tmp_path: Path, source: Source) -> None:
    """The picture is its own mask, so its grey latent, a mean over cells, must be what the mask says."""
    rng = np.random.default_rng(0)
    grey = Image.fromarray(rng.integers(0, 255, (12, 40), dtype=np.uint8)).resize((400, 120), Image.Resampling.BICUBIC)
    for name in ("pictures", "masks"):
        (tmp_path / name).mkdir()
        grey.convert("RGB").save(tmp_path / name / "a.png")
    found = scan([source(str(tmp_path / "pictures"), masks=str(tmp_path / "masks"))])
    (example,) = cached(found, tmp_path).examples
    assert example.mask_HW is not None
    assert example.mask_HW.shape == example.latent_CHW.shape[1:] == (6, 10)
    torch.testing.assert_close(example.mask_HW, (example.latent_CHW[0] + 1) / 2, atol=0.02, rtol=0)


def test_a_mirrored_picture_has_its_mask_mirrored(folder: Path, masks: Path, source: Source) -> None:
    dataset = cached(scan([source(str(folder), masks=str(masks))]), folder, flip=True)
    example = dataset.examples[0]
    mirrored = example.mirrored()
    assert example.mask_HW is not None
    assert mirrored.mask_HW is not None
    assert example.mask_HW[:, 0].eq(1).all()
    assert mirrored.mask_HW[:, 0].eq(0).all()
    assert dataset.examples[2].mirrored().mask_HW is None


def test_a_batch_has_masks_where_one_of_its_pictures_has(folder: Path, masks: Path, source: Source) -> None:
    dataset = cached(scan([source(str(folder), masks=str(masks))]), folder)
    plan = BatchPlan([example.bucket for example in dataset.examples], [1] * 3, 2, 0)
    batches = MicroBatches(dataset, plan, 0)
    loader = Loader(batches, 1)
    try:
        for number in range(2):
            batch, ahead = batches.at(number), loader.at(number)
            assert batch.masks_BHW is not None
            assert ahead.masks_BHW is not None
            assert torch.equal(batch.masks_BHW, ahead.masks_BHW)
            for index, mask_HW in zip(batch.indices, batch.masks_BHW, strict=True):
                own_HW = dataset.examples[index].mask_HW
                assert torch.equal(mask_HW, torch.ones_like(mask_HW) if own_HW is None else own_HW)
    finally:
        loader.close()


def test_masks_are_kept_in_the_cache_and_a_changed_one_is_read_anew(
    folder: Path, masks: Path, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    import acrf_engine.data.cache as module

    made: list[Path] = []
    coverage = module.coverage

    def counting(mask: Any, size: Any) -> Any:
        made.append(mask.path)
        return coverage(mask, size)

    monkeypatch.setattr(module, "coverage", counting)
    sources = [source(str(folder), masks=str(masks))]
    first = cached(scan(sources), folder)
    assert len(made) == 2
    again = cached(scan(sources), folder)
    assert len(made) == 2
    assert again.fingerprint == first.fingerprint
    softer = cached(scan([source(str(folder), masks=str(masks), mask_min_weight=0.5)]), folder)
    assert len(made) == 2
    half(Image.open(folder / "chelsea.png").size).transpose(Image.Transpose.ROTATE_180).save(masks / "chelsea.png")
    changed = cached(scan(sources), folder)
    assert made[2:] == [masks / "chelsea.png"]
    unmasked = cached(scan([source(str(folder))]), folder)
    prints = {first.fingerprint, softer.fingerprint, changed.fingerprint, unmasked.fingerprint}
    assert len(prints) == 4
    assert [name for name in first.parts if first.parts[name] != changed.parts[name]] == ["masks"]


def test_masks_count_in_the_progress_cached_or_not(folder: Path, masks: Path, source: Source) -> None:
    found = scan([source(str(folder), masks=str(masks))])
    for _ in range(2):
        seen: list[tuple[int, int, str]] = []
        cached(found, folder, on_progress=lambda *step, seen=seen: seen.append(step))
        assert [step[:2] for step in seen] == [(n, 9) for n in range(1, 10)]
        assert [what for *_, what in seen].count("masks") == 2


@pytest.mark.parametrize("minimum", [0.1, 0.3, 0.7])
def test_what_a_mask_keeps_weighs_exactly_1_whatever_the_rest_weighs(
    folder: Path, masks: Path, source: Source, minimum: float
) -> None:
    mask_HW = cached(scan([source(str(folder), masks=str(masks), mask_min_weight=minimum)]), folder).examples[0].mask_HW
    assert mask_HW is not None
    assert mask_HW[:, :4].eq(1).all()
    torch.testing.assert_close(mask_HW[:, 4:], torch.full_like(mask_HW[:, 4:], minimum))


@pytest.mark.parametrize(
    ("mask", "says"),
    [
        (Image.new("L", (200, 20), 255), "has not the shape of"),
        (Image.new("L", (200, 133), 0), "leaves out the whole picture"),
        (None, "empty file"),
    ],
)
def test_a_mask_that_cannot_be_used_leaves_its_picture_out_by_name(
    folder: Path, masks: Path, source: Source, mask: Image.Image | None, says: str
) -> None:
    file = masks / "chelsea.png"
    if mask is None:
        file.write_bytes(b"")
    else:
        mask.save(file)
    (rejected,) = scan([source(str(folder), masks=str(masks))]).rejected
    assert rejected.path == folder / "chelsea.png"
    assert rejected.reason.startswith(f"its mask {file} cannot be used: ")
    assert says in rejected.reason


def test_a_black_mask_is_fine_where_nothing_counts_less_than_something(
    folder: Path, masks: Path, source: Source
) -> None:
    Image.new("L", Image.open(folder / "chelsea.png").size, 0).save(masks / "chelsea.png")
    found = scan([source(str(folder), masks=str(masks), mask_min_weight=0.1)])
    assert found.rejected == ()
    mask_HW = cached(found, folder).examples[1].mask_HW
    assert mask_HW is not None
    assert mask_HW.eq(mask_HW[0, 0]).all()


def test_a_mask_that_is_cropped_away_is_an_error_with_a_way_out(tmp_path: Path, source: Source) -> None:
    for name in ("pictures", "masks"):
        (tmp_path / name).mkdir()
    Image.effect_noise((400, 100), 50).convert("RGB").save(tmp_path / "pictures" / "a.png")
    edge = Image.new("L", (400, 100), 0)
    edge.paste(255, (0, 0, 20, 100))
    edge.save(tmp_path / "masks" / "a.png")
    found = scan([source(str(tmp_path / "pictures"), masks=str(tmp_path / "masks"))])
    with pytest.raises(DataError, match=r"a\.png: what its mask keeps is cropped away at 80x48 \(set mask_min_weight"):
        cached(found, tmp_path)


def test_a_mask_follows_the_rotation_of_its_picture(tmp_path: Path, source: Source) -> None:
    """A phone's picture lies on its side in the file; its mask, drawn over what one sees, does not."""
    for name in ("pictures", "masks"):
        (tmp_path / name).mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.effect_noise((160, 100), 50).convert("RGB").save(tmp_path / "pictures" / "a.jpg", exif=exif.tobytes())
    half((100, 160)).save(tmp_path / "masks" / "a.png")
    found = scan([source(str(tmp_path / "pictures"), masks=str(tmp_path / "masks"))])
    assert found.rejected == ()
    mask_HW = cached(found, tmp_path).examples[0].mask_HW
    assert mask_HW is not None
    assert mask_HW.shape == (10, 6)
    assert mask_HW[:, :2].eq(1).all()


def test_a_missing_mask_folder_is_an_error(folder: Path, source: Source) -> None:
    with pytest.raises(DataError, match="does not exist"):
        scan([source(str(folder), masks=str(folder / "nowhere"))])
    os.mkdir(folder / "nothing")
    with pytest.raises(DataError, match="holds no pictures"):
        scan([source(str(folder), masks=str(folder / "nothing"))])

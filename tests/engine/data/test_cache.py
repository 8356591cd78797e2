from __future__ import annotations

import errno
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d

from acrf_engine.data.cache import Cache, CachedDataset, fill
from acrf_engine.data.decoding import DECODE_THREADS
from acrf_engine.data.errors import DataError
from acrf_engine.data.pictures import load_rgb
from acrf_engine.data.scan import scan

Photos = dict[str, Image.Image]


class PoolingEncoder:
    """Mean colours for latents, bytes for embeddings: cheap, and different for different input."""

    def __init__(self, fingerprint: str = "weights-1") -> None:
        self.fingerprint = fingerprint
        self.asked: list[str] = []

    def encode_picture(self, pixels_3HW: Tensor) -> Tensor:
        self.asked.append("picture")
        assert pixels_3HW.dtype == torch.float32
        assert -1 <= pixels_3HW.min() < pixels_3HW.max() <= 1
        return avg_pool2d(pixels_3HW, 8).repeat(6, 1, 1)[:16]

    def encode_caption(self, text: str) -> Tensor:
        self.asked.append(f"caption {text!r}")
        return torch.tensor([[float(byte), 1.0] for byte in b"^" + text.encode()])


class Home:
    """A folder of pictures, its cache, and how often the encoder was made."""

    def __init__(self, folder: Path, cache: Path, source: Callable[..., Any]) -> None:
        self.folder, self.cache, self.source = folder, Cache(cache), source
        self.encoder: PoolingEncoder | None = None

    def fill(self, resolution: int = 64, fingerprint: str = "weights-1", **options: Any) -> CachedDataset:
        self.encoder = None

        def make() -> PoolingEncoder:
            assert self.encoder is None, "made twice"
            self.encoder = PoolingEncoder(fingerprint)
            return self.encoder

        return fill(scan([self.source(str(self.folder))]), resolution, make, fingerprint, self.cache, **options)

    @property
    def encoded(self) -> list[str]:
        """What the last `fill` had to encode."""
        return [] if self.encoder is None else self.encoder.asked

    def entries(self, kind: str) -> list[Path]:
        return sorted((self.cache.folder / kind).rglob("*.safetensors"))


@pytest.fixture
def home(folder: Path, tmp_path: Path, source: Callable[..., Any]) -> Home:
    return Home(folder, tmp_path / "some" / "cache", source)


def same(a: CachedDataset, b: CachedDataset) -> bool:
    return (
        a.fingerprint == b.fingerprint
        and all(
            torch.equal(x.latent_CHW, y.latent_CHW) and torch.equal(x.caption_LD, y.caption_LD)
            for x, y in zip(a.examples, b.examples, strict=True)
        )
        and a.captions.keys() == b.captions.keys()
    )


def test_every_picture_becomes_an_example(home: Home) -> None:
    dataset = home.fill()
    assert [example.index for example in dataset.examples] == [0, 1, 2]
    assert [example.picture.path.stem for example in dataset.examples] == ["astronaut", "chelsea", "coffee"]
    assert [example.bucket for example in dataset.examples] == [(64, 64), (80, 48), (80, 48)]
    assert [tuple(example.latent_CHW.shape) for example in dataset.examples] == [(16, 8, 8), (16, 6, 10), (16, 6, 10)]
    assert dataset.bucket_counts == {(80, 48): 2, (64, 64): 1}
    for example in dataset.examples:
        assert example.latent_CHW.dtype == example.caption_LD.dtype == torch.float32
        text = b"^" + example.picture.caption.encode()
        assert example.caption_LD[:, 0].tolist() == [float(byte) for byte in text]
        red, green, blue = example.latent_CHW[:3].mean(dim=(1, 2))
        colour = Image.open(example.picture.path).resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
        assert isinstance(colour, tuple)
        for got, level in zip((red, green, blue), colour, strict=True):
            assert abs((got.item() + 1) * 127.5 - level) < 12


def test_the_empty_caption_and_extra_ones_are_embedded(home: Home) -> None:
    dataset = home.fill(extra_captions=["a preview", "a photo of coffee"])
    assert dataset.captions[""].tolist() == [[float(ord("^")), 1.0]]
    assert list(dataset.captions) == [
        "", "a photo of astronaut", "a photo of chelsea", "a photo of coffee", "a preview",
    ]  # fmt: skip


def test_captions_come_before_pictures_and_each_text_once(home: Home) -> None:
    for name in ("coffee", "chelsea"):
        (home.folder / f"{name}.txt").write_text("the same words")
    home.fill()
    assert home.encoded == [
        "caption ''",
        "caption 'a photo of astronaut'",
        "caption 'the same words'",
        "picture",
        "picture",
        "picture",
    ]


def test_the_second_time_no_encoder_is_loaded(home: Home) -> None:
    first = home.fill()
    second = home.fill()
    assert home.encoder is None
    assert same(first, second)


def test_only_what_is_new_is_encoded(home: Home, photos: Photos) -> None:
    before = home.fill()
    photos["rocket"].save(home.folder / "a new one.png")
    after = home.fill()
    assert home.encoded == ["picture"]
    assert len(after.examples) == 4
    assert before.fingerprint != after.fingerprint


def test_a_changed_caption_is_encoded_again(home: Home) -> None:
    before = home.fill()
    (home.folder / "coffee.txt").write_text("a cup of tea")
    after = home.fill()
    assert home.encoded == ["caption 'a cup of tea'"]
    assert after.examples[2].caption_LD[1, 0] == ord("a")
    assert not torch.equal(before.examples[2].caption_LD, after.examples[2].caption_LD)
    assert before.fingerprint != after.fingerprint


def test_a_picture_with_new_content_under_its_old_name_is_encoded_again(home: Home, photos: Photos) -> None:
    before = home.fill()
    file = home.folder / "coffee.png"
    times = file.stat()
    photos["rocket"].resize(photos["coffee"].size).save(file)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    after = home.fill()
    assert home.encoded == ["picture"]
    assert not torch.equal(before.examples[2].latent_CHW, after.examples[2].latent_CHW)
    assert before.fingerprint != after.fingerprint


def test_a_renamed_picture_is_not_encoded_again(home: Home) -> None:
    home.fill()
    for suffix in (".png", ".txt"):
        (home.folder / f"coffee{suffix}").rename(home.folder / f"drink{suffix}")
    assert home.fill().examples[2].picture.path.name == "drink.png"
    assert home.encoder is None


def test_another_model_and_another_resolution_have_their_own_entries(home: Home) -> None:
    first = home.fill()
    other_model = home.fill(fingerprint="weights-2")
    assert len(home.encoded) == 7
    larger = home.fill(resolution=128)
    assert home.encoded == ["picture"] * 3
    assert larger.examples[0].latent_CHW.shape == (16, 16, 16)
    assert len({first.fingerprint, other_model.fingerprint, larger.fingerprint}) == 3
    assert same(home.fill(), first)
    assert home.encoder is None


def test_flip_encodes_the_mirrored_pictures_once_beside_those_that_are_cached(home: Home) -> None:
    plain = home.fill()
    both = home.fill(flip=True)
    assert home.encoded == ["picture"] * 3
    for before, example in zip(plain.examples, both.examples, strict=True):
        assert torch.equal(example.latent_CHW, before.latent_CHW)
        # The encoder of these tests takes means of cells, so its latents mirror as the pixels do.
        torch.testing.assert_close(example.mirrored().latent_CHW, before.latent_CHW.flip(-1))
        assert example.mirrored().caption_LD is example.caption_LD
    assert both.fingerprint != plain.fingerprint
    assert same(home.fill(flip=True), both)
    assert home.encoder is None
    assert same(home.fill(), plain)


def test_a_picture_that_was_cached_one_way_cannot_be_mirrored(home: Home) -> None:
    with pytest.raises(ValueError, match=r"astronaut\.png was not cached both ways"):
        home.fill().examples[0].mirrored()


def test_repeats_are_part_of_what_a_run_trains_on(home: Home) -> None:
    once = scan([home.source(str(home.folder))])
    twice = scan([home.source(str(home.folder), repeats=2)])
    prints = [fill(s, 64, PoolingEncoder, "weights-1", home.cache).fingerprint for s in (once, twice)]
    assert prints[0] != prints[1]


def flip_a_bit(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-7] ^= 1
    file.write_bytes(data)


def zero_the_tail(file: Path) -> None:
    data = file.read_bytes()
    file.write_bytes(data[:-100] + bytes(100))


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-40])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def rubbish(file: Path) -> None:
    file.write_bytes(b"\xff" * 200)


def other_entry(file: Path) -> None:
    other = next(path for path in file.parent.parent.rglob("*.safetensors") if path != file)
    shutil.copy(other, file)


def without_metadata(file: Path) -> None:
    from safetensors.torch import load, save

    file.write_bytes(save(load(file.read_bytes())))


@pytest.mark.parametrize("damage", [flip_a_bit, zero_the_tail, cut, empty, rubbish, other_entry, without_metadata])
@pytest.mark.parametrize("kind", ["latents", "captions"])
def test_a_damaged_entry_is_encoded_again_not_trusted(home: Home, kind: str, damage: Callable[[Path], None]) -> None:
    first = home.fill()
    damage(home.entries(kind)[0])
    assert same(home.fill(), first)
    assert len(home.encoded) == 1
    assert same(home.fill(), first)
    assert home.encoder is None


def test_the_cache_is_for_this_user_only(home: Home) -> None:
    old = os.umask(0)
    try:
        home.fill()
    finally:
        os.umask(old)
    inside = [home.cache.folder, *home.cache.folder.rglob("*")]
    for path in inside:
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600)


def test_progress_reaches_the_total_cached_or_not(home: Home) -> None:
    for _ in range(2):
        seen: list[tuple[int, int, str]] = []
        home.fill(on_progress=lambda *step, seen=seen: seen.append(step))
        assert seen == [(n, 7, "captions" if n <= 4 else "pictures") for n in range(1, 8)]


def test_work_done_before_an_interruption_is_kept(home: Home) -> None:
    def stop(done: int, total: int, what: str) -> None:
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        home.fill(on_progress=stop)
    home.fill()
    assert home.encoded == ["picture"]


def test_a_kill_in_the_middle_of_writing_leaves_only_whole_entries(tmp_path: Path) -> None:
    code = """
        import sys, torch
        from pathlib import Path
        from acrf_engine.data.tensor_files import Cache
        cache = Cache(Path(sys.argv[1]))
        print("ready", flush=True)
        for n in range(10**9):
            cache.write("latents", f"{n % 50:064x}", torch.full((16, 64, 64), float(n % 50)))
    """
    writer = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code), str(tmp_path)], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    writer.stdout.readline()
    time.sleep(0.4)
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    files = list(tmp_path.rglob("*.safetensors"))
    assert files
    for file in files:
        tensor = Cache(tmp_path).read("latents", file.stem)
        assert tensor is not None
        assert (tensor == int(file.stem, 16)).all()


def test_leftovers_of_killed_processes_go_and_those_in_use_stay(home: Home) -> None:
    home.fill()
    place = home.entries("latents")[0].parent
    old, young = place / ".old.tmp", place / ".young.tmp"
    for file in (old, young):
        file.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    empty(home.entries("latents")[0])
    home.fill()
    assert not old.exists()
    assert young.exists()


def test_a_full_disk_names_the_cache_folder_and_the_space_left(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("acrf_engine.data.tensor_files.os.fsync", full)
    with pytest.raises(DataError) as caught:
        home.fill()
    free = shutil.disk_usage(home.cache.folder).free
    assert str(home.cache.folder) in caught.value.message
    assert "bytes free" in caught.value.message
    assert free > 0
    assert "no space left" in caught.value.message
    assert [path for path in home.cache.folder.rglob("*") if path.is_file()] == []


def test_a_file_size_limit_counts_as_a_full_disk(tmp_path: Path) -> None:
    code = """
        import resource, sys, torch
        from pathlib import Path
        from acrf_engine.data.cache import Cache
        from acrf_engine.data.errors import DataError
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        try:
            Cache(Path(sys.argv[1])).write("latents", "ab" * 32, torch.zeros(16, 64, 64))
        except DataError as error:
            print(error.message)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"cache folder {tmp_path} is full" in said
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_cache_folder_that_cannot_be_made_is_named(home: Home, tmp_path: Path) -> None:
    (tmp_path / "some").write_text("a file in the way")
    with pytest.raises(DataError, match=str(home.cache.folder)):
        home.fill()


def test_a_picture_that_changes_between_scan_and_encoding_is_an_error(home: Home, photos: Photos) -> None:
    found = scan([home.source(str(home.folder))])
    photos["rocket"].save(home.folder / "coffee.png")
    with pytest.raises(DataError, match=r"coffee\.png: changed since it was scanned"):
        fill(found, 64, PoolingEncoder, "weights-1", home.cache)
    assert len(home.entries("latents")) == 2


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_cannot_be_trained_on_are_not_cached(home: Home, number: float) -> None:
    class Overflowing(PoolingEncoder):
        def encode_picture(self, pixels_3HW: Tensor) -> Tensor:
            return super().encode_picture(pixels_3HW) + number

    with pytest.raises(DataError, match=r"astronaut\.png: the VAE gave NaN or infinite"):
        fill(scan([home.source(str(home.folder))]), 64, Overflowing, "weights-1", home.cache)
    assert home.entries("latents") == []


def test_latents_of_the_wrong_size_are_refused(home: Home) -> None:
    class Halving(PoolingEncoder):
        def encode_picture(self, pixels_3HW: Tensor) -> Tensor:
            return super().encode_picture(pixels_3HW)[:, ::2]

    with pytest.raises(DataError, match=r"\(16, 4, 8\), not \(channels, 8, 8\)"):
        fill(scan([home.source(str(home.folder))]), 64, Halving, "weights-1", home.cache)


def test_an_encoder_with_another_fingerprint_is_refused(home: Home) -> None:
    with pytest.raises(DataError, match="the model changed"):
        fill(scan([home.source(str(home.folder))]), 64, PoolingEncoder, "weights-2", home.cache)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_examples_can_be_trained_on_whatever_mode_the_encoder_used(home: Home, dtype: torch.dtype) -> None:
    class Inference(PoolingEncoder):
        @torch.inference_mode()
        def encode_picture(self, pixels_3HW: Tensor) -> Tensor:
            return super().encode_picture(pixels_3HW).to(dtype)

    dataset = fill(scan([home.source(str(home.folder))]), 64, Inference, "weights-1", home.cache)
    latent = dataset.examples[0].latent_CHW
    weight = torch.ones(16, 1, 1, requires_grad=True)
    (latent * weight).sum().backward()
    assert latent.dtype == torch.float32
    assert weight.grad is not None


def test_pictures_are_decoded_only_a_little_ahead(
    folder: Path, home: Home, photos: Photos, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(8):
        photos["rocket"].resize((100 + number, 80)).save(folder / f"rocket {number}.png")
    decoded: list[str] = []

    def counting(path: Path, sha256: str | None = None) -> Image.Image:
        decoded.append(path.name)
        return load_rgb(path, sha256)

    monkeypatch.setattr("acrf_engine.data.cache.load_rgb", counting)
    ahead: list[int] = []

    class Watching(PoolingEncoder):
        def encode_picture(self, pixels_3HW: Tensor) -> Tensor:
            latent = super().encode_picture(pixels_3HW)
            time.sleep(0.02)
            ahead.append(len(decoded) - self.asked.count("picture"))
            return latent

    fill(scan([home.source(str(folder))]), 64, Watching, "weights-1", home.cache)
    assert len(ahead) == 11
    assert 1 <= max(ahead) <= DECODE_THREADS


def test_the_key_of_an_entry_is_its_name(home: Home) -> None:
    home.fill()
    for kind in ("latents", "captions"):
        for file in home.entries(kind):
            assert len(file.stem) == hashlib.sha256().digest_size * 2
            assert file.parent.name == file.stem[:2]

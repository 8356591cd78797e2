"""Micro-batches: the same ones whoever puts them together, and no process left behind."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import torch

from acrf_engine.data.batches import Batch, BatchPlan
from acrf_engine.data.cache import CachedDataset, Example
from acrf_engine.data.loader import Loader, LoaderDied, MicroBatches
from acrf_engine.data.scan import Picture

SIZES = [(64, 64)] * 5 + [(80, 48)] * 4


def dataset() -> CachedDataset:
    """Nine pictures in two buckets. A latent is full of its number, mirrored of its negative; captions are of
    different lengths.
    """
    examples = []
    for index, (width, height) in enumerate(SIZES):
        picture = Picture(Path(f"{index}.png"), str(index), width, height, f"picture {index}", True, 1)
        latent_CHW = torch.full((2, height // 8, width // 8), index + 1.0)
        caption_LD = torch.full((index + 2, 3), index + 1.0)
        examples.append(Example(index, picture, (width, height), latent_CHW, caption_LD, -latent_CHW))
    return CachedDataset(tuple(examples), {"": torch.zeros(1, 3)}, "fingerprint")


def micro_batches(batch_size: int = 2, seed: int = 0, flip: bool = True, dropout: float = 0.3) -> MicroBatches:
    return MicroBatches(dataset(), BatchPlan(SIZES, [1] * len(SIZES), batch_size, seed), seed, flip, dropout)


@contextmanager
def loading(batches: MicroBatches, num_workers: int) -> Iterator[Callable[[int], Batch]]:
    loader = Loader(batches, num_workers)
    try:
        yield loader.at
    finally:
        loader.close()


def same(a: Batch, b: Batch) -> bool:
    return (
        a.indices == b.indices
        and torch.equal(a.latents_BCHW, b.latents_BCHW)
        and all(torch.equal(x, y) for x, y in zip(a.captions, b.captions, strict=True))
    )


OTHERS = psutil.Process().children()
"""Helpers of the test run itself, such as multiprocessing's resource tracker."""


@pytest.fixture(autouse=True)
def _note_what_runs_already() -> None:
    OTHERS[:] = psutil.Process().children()


def loader_processes() -> list[psutil.Process]:
    children = [child for child in psutil.Process().children() if child not in OTHERS]
    return [child for child in children if child.status() != psutil.STATUS_ZOMBIE]


# ---- mirrored pictures and dropped captions --------------------------------------------------------------------------


def test_half_of_the_pictures_are_mirrored_each_with_its_own_caption() -> None:
    batches = micro_batches(dropout=0.0)
    mirrored = []
    for micro_step in range(1000):
        batch = batches.at(micro_step)
        for index, latent_CHW, caption_LD in zip(batch.indices, batch.latents_BCHW, batch.captions, strict=True):
            assert latent_CHW.abs().eq(index + 1).all()
            assert torch.equal(caption_LD, torch.full((index + 2, 3), index + 1.0))
            mirrored.append(bool(latent_CHW[0, 0, 0] < 0))
    assert sum(mirrored) / len(mirrored) == pytest.approx(0.5, abs=0.05)  # four standard deviations


def test_what_is_mirrored_follows_from_the_seed_and_the_position_alone() -> None:
    def signs(seed: int, numbers: list[int]) -> list[list[float]]:
        batches = micro_batches(seed=seed)
        return [batches.at(number).latents_BCHW[:, 0, 0, 0].tolist() for number in numbers]

    numbers = list(range(20))
    forwards = signs(3, numbers)
    torch.manual_seed(1)
    assert signs(3, numbers[::-1])[::-1] == forwards
    assert signs(4, numbers) != forwards


def test_flip_changes_nothing_but_the_mirroring() -> None:
    plain, flipped = micro_batches(flip=False), micro_batches(flip=True)
    for number in range(20):
        ours, theirs = flipped.at(number), plain.at(number)
        assert ours.indices == theirs.indices
        assert torch.equal(ours.latents_BCHW.abs(), theirs.latents_BCHW)
        assert all(torch.equal(a, b) for a, b in zip(ours.captions, theirs.captions, strict=True))


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_captions_are_dropped_as_often_as_asked_and_are_then_the_empty_prompt(rate: float) -> None:
    batches = micro_batches(dropout=rate)
    empty_LD = dataset().captions[""]
    dropped = []
    for number in range(1000):
        batch = batches.at(number)
        for index, caption_LD in zip(batch.indices, batch.captions, strict=True):
            dropped.append(torch.equal(caption_LD, empty_LD))
            assert dropped[-1] or torch.equal(caption_LD, torch.full((index + 2, 3), index + 1.0))
    assert sum(dropped) / len(dropped) == pytest.approx(rate, abs=4 * (rate * (1 - rate) / len(dropped)) ** 0.5)


def test_no_caption_is_dropped_at_0_and_each_one_at_1() -> None:
    for rate, kept in ((0.0, True), (1.0, False)):
        captions = [caption for number in range(50) for caption in micro_batches(dropout=rate).at(number).captions]
        assert all(caption_LD.any().item() is kept for caption_LD in captions)


def test_mirroring_and_dropping_do_not_go_together() -> None:
    """Two draws, not one used twice: all four cases occur."""
    batches = micro_batches(dropout=0.5)
    cases = {
        (bool(latent_CHW[0, 0, 0] < 0), bool(caption_LD.any()))
        for batch in map(batches.at, range(50))
        for latent_CHW, caption_LD in zip(batch.latents_BCHW, batch.captions, strict=True)
    }
    assert len(cases) == 4


# ---- loader processes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_any_number_of_loader_processes_gives_the_same_batches_over_epochs_and_jumps(num_workers: int) -> None:
    batches = micro_batches()
    with loading(batches, num_workers) as at:
        for number in [*range(25), 7, 8, 9, 1000, 1001]:
            assert same(at(number), batches.at(number))
            assert len(loader_processes()) == num_workers


def test_a_batch_of_many_pictures_comes_through() -> None:
    """One file descriptor a tensor would be too many at the usual limit of 1,024."""
    photo_count = 600
    one = dataset().examples[0]
    examples = tuple(one for _ in range(photo_count))
    data = CachedDataset(examples, {"": torch.zeros(1, 3)}, "fingerprint")
    batches = MicroBatches(data, BatchPlan([one.bucket] * photo_count, [1] * photo_count, photo_count, 0), 0)
    with loading(batches, 2) as at:
        assert all(same(at(number), batches.at(number)) for number in range(6))


def test_closing_ends_the_processes() -> None:
    loader = Loader(micro_batches(), 2)
    loader.at(0)
    processes = loader_processes()
    assert len(processes) == 2
    loader.close()
    assert loader_processes() == []
    assert same(loader.at(5), micro_batches().at(5))
    loader.close()


def test_a_killed_loader_process_is_an_error_that_says_what_to_do() -> None:
    with loading(micro_batches(), 2) as at:
        at(0)
        for process in loader_processes():
            process.kill()
        with pytest.raises(LoaderDied, match=r"a loader process died.*lower data\.num_workers from 2"):
            all(at(number) for number in range(1, 100))


LOAD_AND_WAIT = """
import os, signal, sys
import psutil
sys.path.insert(0, sys.argv[1])
from test_loader import Loader, micro_batches
loader = Loader(micro_batches(), 2)
loader.at(0)
print(*[child.pid for child in psutil.Process().children()], flush=True)
sys.stdin.readline()
os._exit(0)
"""


@pytest.mark.parametrize("end", ["killed", "left at once"])
def test_loader_processes_do_not_outlive_the_process_that_started_them(end: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", LOAD_AND_WAIT, str(Path(__file__).parent)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    children = [psutil.Process(int(pid)) for pid in process.stdout.readline().split()]
    assert len(children) == 2
    if end == "killed":
        process.send_signal(signal.SIGKILL)
    process.communicate("\n" if end != "killed" else None)
    assert psutil.wait_procs(children, timeout=3)[1] == []

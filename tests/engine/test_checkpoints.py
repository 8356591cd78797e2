"""Checkpoints: complete and verified, or not there."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bitsandbytes
import pytest
import torch
from torch import Tensor, nn

from acrf_engine.training import checkpoint
from acrf_engine.training.checkpoint import CheckpointError, Snapshot

FILES = ("lora.safetensors", "optimizer.safetensors", "state.json", "manifest.json")


def snapshot(step: int = 0, size: int = 100) -> Snapshot:
    source = torch.Generator().manual_seed(step)
    return Snapshot(
        {"layers.0.lora_A.weight": torch.randn(4, size, generator=source)},
        {"state": {0: {"step": torch.tensor(float(step))}}, "param_groups": [{"lr": 1e-4, "betas": (0.9, 0.999)}]},
        {"step": step, "note": "é"},
    )


def written(folder: Path, *steps: int) -> Path:
    for step in steps:
        checkpoint.write(folder, step, snapshot(step))
    return folder


def newest_step(folder: Path) -> int | None:
    found = next(checkpoint.verified(folder), None)
    return None if found is None else int(found[1].state["step"])


def assert_same(a: Any, b: Any) -> None:
    assert type(a) is type(b)
    if isinstance(a, Tensor):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    else:
        assert a == b


def dtypes_in(value: Any) -> set[torch.dtype]:
    if isinstance(value, Tensor):
        return {value.dtype}
    items = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return {dtype for item in items for dtype in dtypes_in(item)}


# ---- there and back --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "has_8_bit"),
    [
        (lambda p: torch.optim.AdamW(p, lr=1e-3), False),
        (lambda p: bitsandbytes.optim.AdamW8bit(p, lr=1e-3), True),
    ],
    ids=["AdamW", "AdamW8bit"],
)
def test_an_optimizer_continues_bit_for_bit(
    tmp_path: Path, make: Callable[[list[nn.Parameter]], torch.optim.Optimizer], has_8_bit: bool
) -> None:
    """Two matrices: one above 4,096 elements, where AdamW8bit really keeps 8 bits, and one below."""

    def parameters() -> list[nn.Parameter]:
        source = torch.Generator().manual_seed(0)
        return [
            nn.Parameter(torch.randn(64, 128, generator=source)),
            nn.Parameter(torch.randn(8, 16, generator=source)),
        ]

    def train(values: list[nn.Parameter], optimizer: torch.optim.Optimizer, steps: range) -> None:
        for step in steps:
            for index, value in enumerate(values):
                value.grad = torch.randn(value.shape, generator=torch.Generator().manual_seed(100 * step + index))
            optimizer.step()

    straight = parameters()
    optimizer = make(straight)
    train(straight, optimizer, range(5))
    state = optimizer.state_dict()
    if has_8_bit:
        assert torch.uint8 in dtypes_in(state)
    checkpoint.write(tmp_path, 5, Snapshot({str(i): p for i, p in enumerate(straight)}, state, {"step": 5}))
    saved = checkpoint.read(tmp_path / "step-000005")
    assert_same(saved.optimizer, optimizer.state_dict())

    resumed = [nn.Parameter(saved.lora[str(index)].clone()) for index in range(2)]
    fresh = make(resumed)
    fresh.load_state_dict(saved.optimizer)
    train(straight, optimizer, range(5, 9))
    train(resumed, fresh, range(5, 9))
    for a, b in zip(straight, resumed, strict=True):
        assert torch.equal(a, b)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path, size = checkpoint.write(tmp_path, 7, snapshot(7))
    assert path == tmp_path / "step-000007"
    assert size == sum((path / name).stat().st_size for name in FILES)
    assert_same(vars(checkpoint.read(path)), vars(snapshot(7)))


def test_nothing_that_needs_pickle_is_written(tmp_path: Path) -> None:
    path, _ = checkpoint.write(tmp_path, 1, snapshot(1))
    assert sorted(item.name for item in path.iterdir()) == sorted(FILES)
    with pytest.raises(TypeError):
        checkpoint.write(tmp_path, 2, Snapshot({}, {"state": object()}, {}))
    assert [item.name for item in tmp_path.iterdir()] == ["step-000001"]


def test_a_checkpoint_belongs_to_its_user_alone(tmp_path: Path) -> None:
    path, _ = checkpoint.write(tmp_path / "checkpoints", 1, snapshot(1))
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert {stat.S_IMODE(item.stat().st_mode) for item in path.iterdir()} == {0o600}


# ---- which one is used -----------------------------------------------------------------------------------------------


def flip_a_bit(path: Path, where: float = 0.7) -> None:
    raw = bytearray(path.read_bytes())
    raw[int(len(raw) * where)] ^= 1
    path.write_bytes(raw)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def zero_the_tail(path: Path) -> None:
    raw = path.read_bytes()
    path.write_bytes(raw[:-40] + bytes(40))


@pytest.mark.parametrize("damage", [flip_a_bit, truncate, zero_the_tail, Path.unlink, lambda p: p.write_bytes(b"")])
@pytest.mark.parametrize("name", FILES[:3])
def test_a_damaged_checkpoint_is_not_used_and_the_one_before_wins(
    tmp_path: Path, damage: Callable[[Path], None], name: str
) -> None:
    written(tmp_path, 10, 20)
    damage(tmp_path / "step-000020" / name)
    assert newest_step(tmp_path) == 10
    with pytest.raises(CheckpointError, match="step-000020"):
        checkpoint.read(tmp_path / "step-000020")


@pytest.mark.parametrize("manifest", [None, b"", b"{", b"[]", b"{}", b'{"files": 3}', b"\xff\xfe", b"null", b'"x"'])
def test_a_checkpoint_without_a_good_manifest_is_not_used(tmp_path: Path, manifest: bytes | None) -> None:
    written(tmp_path, 10, 20)
    path = tmp_path / "step-000020" / "manifest.json"
    path.unlink() if manifest is None else path.write_bytes(manifest)
    assert newest_step(tmp_path) == 10


@pytest.mark.parametrize("name", FILES[:3])
def test_a_file_of_another_checkpoint_is_noticed(tmp_path: Path, name: str) -> None:
    written(tmp_path, 10, 20)
    shutil.copy(tmp_path / "step-000010" / name, tmp_path / "step-000020" / name)
    changed = snapshot(10), snapshot(20)
    same = name == "optimizer.safetensors" and torch.equal(
        changed[0].optimizer["state"][0]["step"], changed[1].optimizer["state"][0]["step"]
    )
    assert not same
    assert newest_step(tmp_path) == 10


def test_two_checkpoints_with_swapped_names_are_both_refused(tmp_path: Path) -> None:
    written(tmp_path, 5, 10, 20)
    (tmp_path / "step-000010").rename(tmp_path / "x")
    (tmp_path / "step-000020").rename(tmp_path / "step-000010")
    (tmp_path / "x").rename(tmp_path / "step-000020")
    assert newest_step(tmp_path) == 5


def test_where_there_is_none_there_is_none(tmp_path: Path) -> None:
    assert next(checkpoint.verified(tmp_path / "nowhere"), None) is None
    written(tmp_path, 1)
    (tmp_path / "step-000001" / "state.json").unlink()
    (tmp_path / "step-note").mkdir()
    (tmp_path / "step-000009").write_text("a file")
    assert next(checkpoint.verified(tmp_path), None) is None


def test_the_newest_is_the_one_of_the_highest_step_also_above_a_million(tmp_path: Path) -> None:
    written(tmp_path, 999_998, 999_999, 1_000_000)
    assert newest_step(tmp_path) == 1_000_000
    checkpoint.rotate(tmp_path, keep=2)
    assert newest_step(tmp_path) == 1_000_000


# ---- rotation and clean-up -------------------------------------------------------------------------------------------


def test_rotation_keeps_the_newest_n(tmp_path: Path) -> None:
    written(tmp_path, 1, 2, 30, 4)
    checkpoint.rotate(tmp_path, keep=2)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["step-000004", "step-000030"]


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    written(tmp_path, 1)
    for name in (".tmp-2-999", ".trash-step-000000-999"):
        shutil.copytree(tmp_path / "step-000001", tmp_path / name)
    assert newest_step(tmp_path) == 1
    checkpoint.clean(tmp_path)
    assert [item.name for item in tmp_path.iterdir()] == ["step-000001"]


WRITE_FOR_EVER = """
import sys, torch
from pathlib import Path
from acrf_engine.training import checkpoint
from acrf_engine.training.checkpoint import Snapshot
folder = Path(sys.argv[1])
step = 0
while True:
    step += 1
    tensors = {str(i): torch.full((256, 256), float(step)) for i in range(4)}
    checkpoint.write(folder, step % 3, Snapshot(tensors, {}, {"step": step % 3, "serial": step}))
    print(step, flush=True)
"""


def test_a_writer_killed_anywhere_leaves_every_checkpoint_that_it_announced(tmp_path: Path) -> None:
    """The same three steps are written again and again, as a rolled-back run does, and the writer is killed."""
    process = subprocess.Popen([sys.executable, "-c", WRITE_FOR_EVER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        announced = [int(process.stdout.readline()) for _ in range(12)]
    finally:
        process.send_signal(signal.SIGKILL)
    announced += [int(line) for line in process.stdout.read().split()]
    process.wait()

    checkpoint.clean(tmp_path)
    assert {item.name for item in tmp_path.iterdir()} == {"step-000000", "step-000001", "step-000002"}
    serials = [checkpoint.read(path).state["serial"] for path in tmp_path.iterdir()]
    assert max(serials) >= announced[-1]


def test_saving_the_same_step_again_never_leaves_the_run_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fails just where the old checkpoint has been moved aside and the new one not yet put in its place."""
    written(tmp_path, 5)
    rename = os.rename

    def failing(source: Any, target: Any) -> None:
        if Path(source).name.startswith(".tmp-"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        rename(source, target)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(CheckpointError):
        checkpoint.write(tmp_path, 5, snapshot(5))
    monkeypatch.undo()
    checkpoint.clean(tmp_path)
    assert newest_step(tmp_path) == 5


# ---- no room ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes. Around one call only: the log of the test run is a file too."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_file_that_may_not_grow_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    written(tmp_path, 1)
    too_large = snapshot(2, size=8192)
    with pytest.raises(CheckpointError) as caught, files_of_at_most(8192):
        checkpoint.write(tmp_path, 2, too_large)
    assert "step-000002: not saved" in str(caught.value)
    assert os.strerror(errno.EFBIG) in str(caught.value)
    assert [item.name for item in tmp_path.iterdir()] == ["step-000001"]
    assert newest_step(tmp_path) == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting is not permitted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_named_and_leaves_nothing(small_disk: Path) -> None:
    written(small_disk, 1)
    with pytest.raises(CheckpointError, match=r"not saved: (no room|No space left).*MB free on that disk: make room"):
        checkpoint.write(small_disk, 2, snapshot(2, size=100_000))
    assert [item.name for item in small_disk.iterdir()] == ["step-000001"]
    assert newest_step(small_disk) == 1


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="not saved"):
        checkpoint.write(tmp_path / "file" / "checkpoints", 1, snapshot())


def test_a_manifest_says_what_it_vouches_for(tmp_path: Path) -> None:
    path, _ = checkpoint.write(tmp_path, 3, snapshot(3))
    manifest = json.loads((path / "manifest.json").read_text())
    assert manifest["step"] == 3
    assert {name: entry["bytes"] for name, entry in manifest["files"].items()} == {
        name: (path / name).stat().st_size for name in FILES[:3]
    }

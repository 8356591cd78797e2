"""Merging a LoRA into its base, and bringing it to another rank."""

from __future__ import annotations

import os
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from diffusers import ZImagePipeline
from safetensors.torch import load_file, save_file

from acrf_engine.__main__ import main
from acrf_engine.model.adapter import Factors, Lora, from_training
from acrf_engine.model.errors import LoraError
from acrf_engine.model.export import read, save
from acrf_engine.model.layout import Checkpoint
from acrf_engine.model.lora import inject, scaling, target_modules, weights
from acrf_engine.model.merge import merge
from acrf_engine.model.resize import resize, truncate
from acrf_engine.model.zimage import load_transformer, velocity

CPU = torch.device("cpu")
RANK, ALPHA = 8, 3.0
Free = namedtuple("Free", "total used free")


def predict(model: torch.nn.Module) -> torch.Tensor:
    source = torch.Generator().manual_seed(1)
    with torch.no_grad():
        x = torch.randn(1, 16, 8, 8, generator=source)
        return velocity(model, x, torch.tensor([0.6]), [torch.randn(9, 64, generator=source)])


def make_lora(model: Path, path: Path, *, dora: bool = False) -> tuple[Lora, torch.Tensor]:
    """A LoRA with energies that fall, saved in `path`, and what the model with it predicts."""
    transformer = load_transformer(Checkpoint(str(model)), torch.float32, CPU)
    inject(transformer, target_modules(transformer, "ext", refiners=True), RANK, ALPHA, 0, use_dora=dora)
    for index, (name, value) in enumerate(weights(transformer).items()):
        noise = torch.randn(value.shape, generator=torch.Generator().manual_seed(index))
        falling = 0.5 ** torch.arange(RANK)
        if name.endswith("lora_A.weight"):
            value.copy_(0.2 * noise * falling[:, None])
        elif name.endswith("lora_B.weight"):
            value.copy_(0.2 * noise)
        else:
            value.mul_(1 + 0.05 * noise)
    lora = from_training(weights(transformer), scaling(RANK, ALPHA, False))
    save(path, lora, {"ss_sd_model_name": str(model)})
    return lora, predict(transformer)


def sharded(model: Path, place: Path, dtype: torch.dtype) -> Path:
    """A copy of the model with the transformer in two shards of `dtype`, as large models are laid out."""
    folder = Path(shutil.copytree(model, place))
    transformer = load_transformer(Checkpoint(str(model)), torch.float32, CPU).to(dtype)
    for path in (folder / "transformer").glob("*.safetensors"):
        path.unlink()
    transformer.save_pretrained(folder / "transformer", max_shard_size="2MB")
    assert len(list((folder / "transformer").glob("*.safetensors"))) > 1
    return folder


@pytest.mark.parametrize("dora", [False, True])
def test_the_merged_model_predicts_what_base_and_lora_do(tiny_model: Path, tmp_path: Path, dora: bool) -> None:
    _, expected = make_lora(tiny_model, tmp_path / "l.safetensors", dora=dora)
    base = sharded(tiny_model, tmp_path / "base", torch.float32)
    merged = merge(tmp_path / "l.safetensors", str(base), 1.0, tmp_path / "new" / "merged")
    names = {path.relative_to(base) for path in base.rglob("*") if path.is_file()}
    assert {path.relative_to(merged.out) for path in merged.out.rglob("*") if path.is_file()} == names
    found = predict(load_transformer(Checkpoint(str(merged.out)), torch.float32, CPU))
    assert (found - expected).abs().max() < 1e-5
    assert merged.linked > 0
    assert "hard-linked" in merged.lines()[1]
    assert ZImagePipeline.from_pretrained(str(merged.out)).transformer is not None


def test_what_a_killed_merge_left_is_removed_by_the_next(tiny_model: Path, tmp_path: Path) -> None:
    make_lora(tiny_model, tmp_path / "l.safetensors")
    dead, living = tmp_path / ".merged.99999999.tmp", tmp_path / f".merged.{os.getppid()}.tmp"
    for folder in (dead, living):
        folder.mkdir()
        (folder / "half").write_text("x")
    merge(tmp_path / "l.safetensors", str(tiny_model), 1.0, tmp_path / "merged")
    assert not dead.exists()
    assert living.exists()


def test_only_the_lora_s_modules_change_and_by_scale_times_the_change(tiny_model: Path, tmp_path: Path) -> None:
    lora, _ = make_lora(tiny_model, tmp_path / "l.safetensors")
    base = sharded(tiny_model, tmp_path / "base", torch.bfloat16)
    merged = merge(tmp_path / "l.safetensors", str(base), -0.5, tmp_path / "merged")
    assert (merged.modules, merged.dtype) == (len(lora), "BF16")
    assert 0 < merged.error < 0.5
    for path in (base / "transformer").glob("*.safetensors"):
        before, after = load_file(path), load_file(merged.out / "transformer" / path.name)
        assert list(before) == list(after)
        for name, value in before.items():
            factors = lora.get(name.removesuffix(".weight"))
            wanted = value if factors is None else (value.float() + -0.5 * (factors.up_OR @ factors.down_RI)).bfloat16()
            assert torch.equal(after[name], wanted)


def test_a_merge_that_cannot_be_done_says_why_and_leaves_nothing(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_lora(tiny_model, tmp_path / "l.safetensors")
    out, model = tmp_path / "merged", str(tiny_model)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: Free(1, 1, 1000))
        with pytest.raises(LoraError, match=r"MB are needed, 0\.0 MB are free \(make room\)"):
            merge(tmp_path / "l.safetensors", model, 1.0, out)
    other = {"layers.0.attention.to_q": Factors(torch.ones(2, 64), torch.ones(64, 2))}
    save(tmp_path / "o.safetensors", other, {})
    with pytest.raises(LoraError, match=r"changes a weight of shape \(64, 64\).*\(128, 128\) \(another base\?\)"):
        merge(tmp_path / "o.safetensors", model, 1.0, out)
    save(tmp_path / "o.safetensors", {"layers.40.attention.to_q": other["layers.0.attention.to_q"]}, {})
    with pytest.raises(LoraError, match="has no such module"):
        merge(tmp_path / "o.safetensors", model, 1.0, out)
    with pytest.raises(LoraError, match="expected a number"):
        merge(tmp_path / "l.safetensors", model, float("nan"), out)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(LoraError, match="cannot be written"):
            merge(tmp_path / "l.safetensors", model, 1.0, out)
    assert [path.name for path in tmp_path.iterdir() if "merged" in path.name] == []
    out.mkdir()
    (out / "mine").write_text("x")
    with pytest.raises(LoraError, match="is there already"):
        merge(tmp_path / "l.safetensors", model, 1.0, out)


# ---- resize ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_a_smaller_rank_is_the_best_there_is_by_the_full_matrices_singular_values(rank: int) -> None:
    source = torch.Generator().manual_seed(0)
    factors = Factors(torch.randn(8, 40, generator=source), torch.randn(30, 8, generator=source))
    smaller, energy = truncate(factors, rank)
    u, sizes, v = torch.linalg.svd(factors.delta().double(), full_matrices=False)
    best = u[:, :rank] * sizes[:rank] @ v[:rank]
    torch.testing.assert_close(smaller.delta().double(), best, rtol=1e-4, atol=1e-4)
    assert energy == pytest.approx(((sizes[:rank] ** 2).sum() / (sizes**2).sum()).item(), rel=1e-6)
    assert smaller.rank == rank


def test_a_larger_rank_changes_nothing_and_can_be_trained(tiny_model: Path, tmp_path: Path) -> None:
    lora, _ = make_lora(tiny_model, tmp_path / "l.safetensors")
    resize(tmp_path / "l.safetensors", 12, tmp_path / "r.safetensors")
    for module, factors in read(tmp_path / "r.safetensors")[0].items():
        assert factors.rank == 12
        torch.testing.assert_close(factors.delta(), lora[module].delta())
        assert factors.down_RI[8:].abs().sum(dim=1).min() > 0


def test_a_resized_file_says_what_was_kept_and_has_its_rank_as_alpha(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lora, _ = make_lora(tiny_model, tmp_path / "l.safetensors")
    command = ["resize", str(tmp_path / "l.safetensors"), "--rank=2", "--out", str(tmp_path / "r.safetensors")]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "rank 8 -> 2, 42 modules" in said
    assert "attention.to_q" in said
    found, metadata = read(tmp_path / "r.safetensors")
    assert metadata["ss_network_dim"] == metadata["ss_network_alpha"] == "2"
    for module, factors in found.items():
        sizes = torch.linalg.svdvals(lora[module].delta().double())
        left = (factors.delta() - lora[module].delta()).double().square().sum()
        assert left.item() == pytest.approx((sizes[2:] ** 2).sum().item(), rel=1e-3)


def test_a_resize_that_cannot_be_done_says_why(tiny_model: Path, tmp_path: Path) -> None:
    make_lora(tiny_model, tmp_path / "l.safetensors")
    source = tmp_path / "l.safetensors"
    with pytest.raises(LoraError, match="is the file itself"):
        resize(source, 2, source)
    with pytest.raises(LoraError, match=r"has no rank 500"):
        resize(source, 500, tmp_path / "r.safetensors")
    assert main(["resize", str(source), "--rank=0", "--out", str(tmp_path / "r.safetensors")]) == 2
    save_file({"encoder.weight": torch.zeros(2)}, tmp_path / "vae.safetensors")
    with pytest.raises(LoraError, match="not a LoRA"):
        resize(tmp_path / "vae.safetensors", 2, tmp_path / "r.safetensors")
    assert not (tmp_path / "r.safetensors").exists()

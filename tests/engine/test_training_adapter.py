"""A training adapter is in every step, and in nothing that is drawn or saved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from exactly import all_equal, everything, trace, train
from safetensors import safe_open

from acrf_engine.check import check
from acrf_engine.config import RunConfig
from acrf_engine.model import lora
from acrf_engine.model.adapter import Factors
from acrf_engine.model.errors import LoraError
from acrf_engine.model.export import save
from acrf_engine.training.identity import MismatchError
from acrf_engine.training.previews import draw_previews
from acrf_engine.training.trainer import Trainer

Make = Callable[..., Trainer]
FEW: dict[str, Any] = {"gradient_accumulation": 1, "steps": 6, "preview": {"prompts": ["a red circle"]}}


def write_adapter(path: Path, seed: int = 0, modules: tuple[str, ...] = ()) -> Path:
    """Of two ranks, on modules that a run trains and on one that it does not."""
    draw = torch.Generator().manual_seed(seed)
    wanted = modules or ("layers.0.attention.to_q", "layers.3.attention.to_out.0", "layers.1.feed_forward.w2")
    sizes = {name: (341 if name.endswith("w2") else 128, 4 + 4 * number) for number, name in enumerate(wanted)}
    save(
        path,
        {
            name: Factors(torch.randn(rank, into, generator=draw) / 8, torch.randn(128, rank, generator=draw) / 4)
            for name, (into, rank) in sizes.items()
        },
        {},
    )
    return path


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return write_adapter(tmp_path / "adapter.safetensors")


def test_it_is_in_every_step_and_the_trained_lora_holds_none_of_it(
    make_trainer: Make, adapter: Path, tmp_path: Path
) -> None:
    without = train(make_trainer("without", **FEW), 2)
    trainer = make_trainer("with", **FEW, base={"training_adapter": str(adapter)})
    frozen = {
        name: value.detach().clone()
        for name, value in trainer.prepared.transformer.named_parameters()
        if lora.TRAINING_ADAPTER in name
    }
    assert len(frozen) == 6
    assert train(trainer, 2)[0].loss != pytest.approx(without[0].loss, rel=1e-3)
    now = dict(trainer.prepared.transformer.named_parameters())
    assert all(torch.equal(now[name], value) and not now[name].requires_grad for name, value in frozen.items())

    path = tmp_path / "lora.safetensors"
    assert trainer.save_lora(path) == len(trainer.prepared.modules)
    with safe_open(path, "pt") as file:
        names = set(file.keys())
    assert not any("w2" in name or "training_adapter" in name for name in names)
    assert {name.removeprefix("transformer.").partition(".lora_")[0] for name in names} == set(trainer.prepared.modules)


def test_a_preview_is_drawn_without_it_and_the_next_step_has_it_again(make_trainer: Make, adapter: Path) -> None:
    plain = draw_previews(make_trainer("plain", **FEW))[0]
    untouched = make_trainer("untouched", **FEW, base={"training_adapter": str(adapter)})
    wanted = trace(train(untouched, 2))
    drawing = make_trainer("drawing", **FEW, base={"training_adapter": str(adapter)})
    drawn = draw_previews(drawing)[0]
    assert Path(drawn.path).read_bytes() == Path(plain.path).read_bytes()
    assert Path(drawn.baseline).read_bytes() == Path(plain.baseline).read_bytes()
    assert trace(train(drawing, 2)) == wanted


def test_a_run_goes_on_exactly_with_it_and_not_with_another(make_trainer: Make, adapter: Path) -> None:
    values: dict[str, Any] = {**FEW, "base": {"training_adapter": str(adapter)}}
    straight = make_trainer("run", **values)
    train(straight, 2)
    straight.save_checkpoint()
    rest = train(straight, 2)
    resumed = make_trainer("run", **values)
    assert trace(train(resumed, 2)) == trace(rest)
    assert all_equal(everything(resumed), everything(straight))
    write_adapter(adapter, seed=1)
    with pytest.raises(MismatchError, match="training adapter"):
        make_trainer("run", **values)


def test_it_goes_with_a_quantised_base_and_recomputed_blocks(make_trainer: Make, adapter: Path) -> None:
    base = {"training_adapter": str(adapter)}
    plain = train(make_trainer("plain", **FEW, base=base), 1)
    memory = {"quantization": "fp8", "gradient_checkpointing": "on"}
    small = train(make_trainer("small", **FEW, base=base, memory=memory), 1)
    assert small[0].loss == pytest.approx(plain[0].loss, rel=0.05)


def test_one_that_does_not_fit_is_refused_by_module_by_check_too(
    make_trainer: Make, make_config: Callable[..., RunConfig], adapter: Path, tmp_path: Path
) -> None:
    other = write_adapter(tmp_path / "other.safetensors", modules=("layers.9.attention.to_q",))
    with pytest.raises(LoraError, match=r"base\.training_adapter: .*no module layers\.9\.attention\.to_q"):
        make_trainer("other", **FEW, base={"training_adapter": str(other)})
    with pytest.raises(LoraError, match=r"base\.training_adapter: .*no module layers\.9\.attention\.to_q"):
        check(make_config(base={"training_adapter": str(other)}), "other", tmp_path)
    wide = write_adapter(tmp_path / "wide.safetensors", modules=("layers.0.feed_forward.w1",))
    with pytest.raises(LoraError, match=r"shape \(128, 128\), the model's is \(341, 128\)"):
        make_trainer("wide", **FEW, base={"training_adapter": str(wide)})
    with pytest.raises(LoraError, match=r"shape \(128, 128\), the model's is \(341, 128\)"):
        check(make_config(base={"training_adapter": str(wide)}), "wide", tmp_path)
    assert check(make_config(base={"training_adapter": str(adapter)}), "fits", tmp_path).memory["training adapter"] > 0

"""Starting a LoRA from a file: it begins where the file stands, or says why it cannot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from exactly import all_equal, everything, poison_the_global_generators, trace, train

from acrf_engine.check import check
from acrf_engine.config import absolute, build_config, dump
from acrf_engine.model import lora
from acrf_engine.model.adapter import Factors, Lora, from_training, require_same_effect
from acrf_engine.model.errors import TargetsError
from acrf_engine.model.export import export, read, save
from acrf_engine.model.formats import FORMATS
from acrf_engine.model.zimage import velocity
from acrf_engine.run.folder import RunFolder, create_run
from acrf_engine.run.resuming import prepare_resume
from acrf_engine.training.preparation import Prepared, prepare
from acrf_engine.training.trainer import Trainer
from acrf_engine.yaml_source import ConfigError

RANK = 4
MODULES = [f"layers.{block}.attention.{name}" for block in range(4) for name in ("to_q", "to_k", "to_v", "to_out.0")]


def some_lora(rank: int = RANK, width: int = 128, modules: list[str] = MODULES, dora: bool = False) -> Lora:
    source = torch.Generator().manual_seed(5)

    def draw(*shape: int) -> torch.Tensor:
        return 0.05 * torch.randn(*shape, generator=source)

    return {
        module: Factors(draw(rank, width), draw(width, rank), 1 + draw(width).abs() if dora else None)
        for module in modules
    }


@pytest.fixture
def prepared_with(make_config: Callable[..., Any]) -> Callable[..., tuple[Prepared, Lora]]:
    """The prepared run of a config, and the effect that its LoRA has before the first step."""

    def make(path: Path, lora_keys: dict[str, Any], **values: Any) -> tuple[Prepared, Lora]:
        config = make_config(network_dim=RANK, **values, lora={"init_from": str(path), **lora_keys})
        prepared = prepare(config, lambda _event: None, lambda: None)
        scale = lora.scaling(RANK, config.network_alpha, config.lora.use_rslora)
        return prepared, from_training(lora.weights(prepared.transformer), scale)

    return make


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("keys", [{}, {"use_rslora": True}])
def test_it_starts_with_the_effect_of_the_file_whatever_alpha_and_format(
    kind: Any, keys: dict[str, Any], tmp_path: Path, prepared_with: Callable[..., tuple[Prepared, Lora]]
) -> None:
    save(tmp_path / "a.safetensors", some_lora(), {})
    export(tmp_path / "a.safetensors", kind, tmp_path / "b.safetensors")
    _, started = prepared_with(tmp_path / "b.safetensors", keys, network_alpha=10.0)
    require_same_effect(started, some_lora())


def test_modules_that_the_file_lacks_start_from_nothing(
    tmp_path: Path, prepared_with: Callable[..., tuple[Prepared, Lora]]
) -> None:
    save(tmp_path / "a.safetensors", some_lora(modules=MODULES[:2]), {})
    _, started = prepared_with(tmp_path / "a.safetensors", {"targets": "ext"})
    require_same_effect({module: started[module] for module in MODULES[:2]}, some_lora(modules=MODULES[:2]))
    assert all(factors.up_OR.abs().max() == 0 for module, factors in started.items() if module not in MODULES[:2])


def test_a_dora_starts_from_a_dora_and_from_a_plain_lora_without_a_jump(
    tmp_path: Path, prepared_with: Callable[..., tuple[Prepared, Lora]]
) -> None:
    save(tmp_path / "plain.safetensors", some_lora(), {})
    prepared, started = prepared_with(tmp_path / "plain.safetensors", {"use_dora": True})
    for module, factors in some_lora().items():
        weight = prepared.transformer.get_submodule(module).base_layer.weight
        assert torch.allclose(started[module].applied(weight), factors.applied(weight), atol=1e-5)
    save(tmp_path / "dora.safetensors", some_lora(dora=True), {})
    _, started = prepared_with(tmp_path / "dora.safetensors", {"use_dora": True})
    require_same_effect(started, some_lora(dora=True))


@pytest.mark.parametrize(
    ("file", "keys", "said"),
    [
        (some_lora(rank=8), {}, r"its rank is 8, network_dim is 4 .*acrf-tui resize FILE --rank 4"),
        (some_lora(modules=[*MODULES, "layers.0.feed_forward.w2"]), {}, r"1 of its 17 modules are not trained here"),
        (some_lora(), {"blocks": "0-2"}, r"4 of its 16 modules .*layers\.3\.attention\.to_k \(widen"),
        (some_lora(dora=True), {}, r"it is a DoRA \(set lora\.use_dora: true\)"),
        (some_lora(width=64), {}, r"of shape \(64, 64\), the model's is \(128, 128\) \(a LoRA of another model\)"),
    ],
)
def test_what_would_be_lost_is_refused(
    file: Lora, keys: dict[str, Any], said: str, tmp_path: Path, prepared_with: Callable[..., tuple[Prepared, Lora]]
) -> None:
    save(tmp_path / "a.safetensors", file, {})
    with pytest.raises(TargetsError, match=said):
        prepared_with(tmp_path / "a.safetensors", keys)


def test_check_tells_another_rank_before_the_model_is_loaded(tmp_path: Path, make_config: Callable[..., Any]) -> None:
    save(tmp_path / "a.safetensors", some_lora(rank=8), {})
    config = make_config(network_dim=RANK, lora={"init_from": str(tmp_path / "a.safetensors")})
    with pytest.raises(TargetsError, match="its rank is 8, network_dim is 4"):
        check(config, "my.yaml", tmp_path)


def test_a_file_that_is_not_there_is_named_before_anything_starts(photo_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(f"dataset: {photo_folder}\nlora:\n  init_from: gone.safetensors\n")
    config = build_config({"dataset": str(photo_folder), "lora": {"init_from": "gone.safetensors"}})
    with pytest.raises(ConfigError, match=r"my\.yaml:3: lora\.init_from: .*gone\.safetensors: there is no such file"):
        absolute(config, path)


def test_a_started_run_needs_its_file_no_more_and_goes_on_bit_for_bit(
    tmp_path: Path, make_config: Callable[..., Any]
) -> None:
    """With DoRA, rsLoRA and dropout: the whole of this page at once."""
    file = tmp_path / "a.safetensors"
    save(file, some_lora(), {})
    keys = {"init_from": str(file), "use_dora": True, "use_rslora": True, "dropout": 0.3}
    config = make_config(network_dim=RANK, lora=keys, steps=4, gradient_accumulation=2)

    def trainer(name: str, fresh: bool) -> Trainer:
        path = tmp_path / "runs" / name
        folder = RunFolder(path) if path.exists() else create_run(path.parent, name, dump(config))
        prepared = prepare(config, lambda _event: None, lambda: None, fresh=fresh)
        poison_the_global_generators()
        return Trainer(config, folder, prepared, lambda _event: None)

    straight = trainer("straight", fresh=True)
    rows = trace(train(straight, 4))
    first = trainer("broken", fresh=True)
    half = trace(train(first, 2))
    first.save_checkpoint()
    file.unlink()
    status = first.folder.recorded_status()
    status.state = "stopped"
    first.folder.write_status(status)
    prepare_resume(first.folder, ["checkpoint.every=7"])
    resumed = trainer("broken", fresh=False)
    torch.rand(100)
    assert half + trace(train(resumed, 2)) == rows
    assert all_equal(everything(resumed), everything(straight))


def test_dropout_changes_the_training_and_not_the_previews(make_trainer: Callable[..., Trainer]) -> None:
    """A new LoRA has an effect of 0, so the second step is the first that dropout can change."""
    rows, outputs = [], []
    for dropout in (0.0, 0.5):
        trainer = make_trainer(f"d{dropout}", lora={"dropout": dropout}, gradient_accumulation=1, learning_rate=1e-2)
        rows.append(trace(train(trainer, 3)))
        trainer.transformer.eval()
        x = torch.ones(1, 16, 8, 8)
        captions = [next(iter(trainer.prepared.dataset.captions.values()))]
        with torch.no_grad():
            outputs.append([velocity(trainer.transformer, x, torch.tensor([0.5]), captions) for _ in range(2)])
    assert rows[0][2] != rows[1][2]
    assert torch.equal(*outputs[1])


def test_the_written_file_is_what_the_trainer_trained(make_trainer: Callable[..., Trainer]) -> None:
    trainer = make_trainer(network_alpha=3.0, lora={"use_rslora": True, "targets": ["to_q"], "blocks": "1,3"})
    train(trainer, 2)
    saved = trainer.save_checkpoint()
    found, metadata = read(Path(saved.lora))
    scale = lora.scaling(16, 3.0, True)
    require_same_effect(found, from_training(lora.weights(trainer.prepared.transformer), scale))
    assert list(found) == ["layers.1.attention.to_q", "layers.3.attention.to_q"]
    assert metadata["acrf_weights"] == "as trained"
    again = trainer.save_checkpoint()
    assert Path(again.lora).read_bytes() == Path(saved.lora).read_bytes()

"""Every optimizer goes on bit for bit after a resume, obeys the learning rate, and says early what it lacks."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from exactly import all_equal, everything, poison_the_global_generators, trace, train
from torch import nn

from acrf_engine.check import check
from acrf_engine.config import RunConfig, absolute, build_config, dump
from acrf_engine.optimizer_config import KINDS, state_bytes
from acrf_engine.run.folder import RunFolder, create_run
from acrf_engine.training.optim import make_optimizer, require_restorable, require_usable
from acrf_engine.training.preparation import Prepared, prepare
from acrf_engine.training.schedule import Ramp
from acrf_engine.training.trainer import Trainer
from acrf_engine.yaml_source import ConfigError

CPU = torch.device("cpu")
# Rank 64, so that 8-bit optimizers really keep 8-bit state.
BASE: dict[str, Any] = {
    "network_dim": 64,
    "gradient_accumulation": 1,
    "steps": 8,
    "scheduler": "polynomial",
    "schedule": {"warmup_ratio": 0.25},
}
CHOICES: dict[str, dict[str, Any]] = {
    "AdamW8bit": {"optimizer": "AdamW8bit", "optimization": {"optimizer_args": {"betas": [0.8, 0.95]}}},
    "Lion8bit": {"optimizer": "Lion8bit", "learning_rate": 3e-5},
    "Adafactor": {"optimizer": "Adafactor"},
    "Adafactor with a first moment": {
        "optimizer": "Adafactor",
        "optimization": {"optimizer_args": {"beta1": 0.9, "scale_parameter": True}},
    },
    "Prodigy": {"optimizer": "Prodigy", "learning_rate": 1.0},
    "Prodigy with arguments": {
        "optimizer": "Prodigy",
        "learning_rate": 1.0,
        "optimization": {"optimizer_args": {"use_bias_correction": True, "safeguard_warmup": True, "slice_p": 11}},
    },
    "by import path": {"optimizer": "torch.optim.NAdam", "optimization": {"optimizer_args": {"momentum_decay": 0.01}}},
}


class Trainers:
    """Trainers of one tiny model, each as a fresh process has it."""

    def __init__(self, home: Path, make_config: Callable[..., RunConfig]) -> None:
        self.home = home
        self.said: list[Any] = []
        self._make_config = make_config
        self._prepared: Prepared | None = None

    def trainer(self, name: str, **values: Any) -> Trainer:
        """The same `name` resumes that run."""
        config = self._make_config(**{**BASE, **values})
        if self._prepared is None:
            self._prepared = prepare(config, lambda _event: None, lambda: None)
        path = self.home / name
        folder = RunFolder(path) if path.exists() else create_run(path.parent, name, dump(config))
        poison_the_global_generators()
        return Trainer(config, folder, copy.deepcopy(self._prepared), self.said.append)


@pytest.fixture(scope="module")
def trainers(tmp_path_factory: pytest.TempPathFactory, make_config: Callable[..., RunConfig]) -> Trainers:
    return Trainers(tmp_path_factory.mktemp("optimizers"), make_config)


# ---- resume ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("choice", list(CHOICES))
def test_a_resumed_run_is_equal_with_every_optimizer(trainers: Trainers, choice: str) -> None:
    """Stopped after step 3, with a change of the rate over a ramp under way."""
    name = choice.replace(" ", "-")
    straight = trainers.trainer(name, **CHOICES[choice])
    train(straight, 2)
    peak = straight.peak_rate()
    straight.ramp = Ramp(2, 4, peak)
    straight.settings.learning_rate = peak / 2
    train(straight, 1)
    straight.save_checkpoint()
    rows = trace(train(straight, 5))

    resumed = trainers.trainer(name, **CHOICES[choice])
    assert resumed.step == 3
    assert trace(train(resumed, 5)) == rows
    assert all_equal(everything(resumed), everything(straight))
    assert trainers.said == []
    straight.close()
    resumed.close()


@pytest.mark.parametrize("choice", ["Lion8bit", "Adafactor", "Prodigy", "by import path"])
def test_a_rollback_repeats_the_steps_after_the_checkpoint(trainers: Trainers, choice: str) -> None:
    trainer = trainers.trainer(f"{choice}-back".replace(" ", "-"), **CHOICES[choice])
    train(trainer, 2)
    trainer.save_checkpoint()
    rows = trace(train(trainer, 2))
    end = copy.deepcopy(everything(trainer))
    assert trainer.roll_back()
    assert [row[:4] for row in trace(train(trainer, 2))] == [row[:4] for row in rows]
    assert all_equal(everything(trainer), end)
    trainer.close()


# ---- the learning rate -----------------------------------------------------------------------------------------------


def probe(config: RunConfig) -> tuple[nn.Parameter, torch.optim.Optimizer]:
    weights = nn.Parameter(torch.linspace(-1, 1, 8192).sin().view(64, 128).clone())
    return weights, make_optimizer(config, [weights])


def moved(config: RunConfig, rate: float) -> float:
    """How far one update at `rate` moves the weights, after three at the config's own."""
    weights, optimizer = probe(config)
    for step in range(4):
        before = weights.detach().clone()
        for group in optimizer.param_groups:
            group["lr"] = rate if step == 3 else config.learning_rate
        weights.grad = (weights.detach() * (step + 1.5)).cos()
        optimizer.step()
    return (weights.detach() - before).norm().item()


@pytest.mark.parametrize("choice", [name for name in CHOICES if name != "Adafactor with a first moment"])
def test_half_the_learning_rate_makes_half_the_step(choice: str) -> None:
    """Adafactor's first moment, off by default, is one of updates already scaled: there a change comes in by and by."""
    config = build_config(CHOICES[choice])
    rate = config.learning_rate
    assert moved(config, rate / 2) == pytest.approx(moved(config, rate) / 2, rel=0.02)


@pytest.mark.parametrize("name", ["AdamW", "Adafactor"])
def test_adafactors_rate_is_the_size_of_a_step_as_adams_is(name: str) -> None:
    """Not scaled by the weights, which are 0 in one half of a LoRA at its start."""
    config = build_config({"optimizer": name, "learning_rate": 1e-3, "optimization": {"weight_decay": 0.0}})
    weights, optimizer = probe(config)
    before = weights.detach().clone()
    weights.grad = torch.ones_like(weights)
    optimizer.step()
    assert (weights.detach() - before).abs().mean().item() == pytest.approx(1e-3, rel=0.01)


# ---- what it keeps ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in KINDS if not KINDS[name].needs_cuda])
def test_the_state_that_check_announces_is_the_state_that_is_kept(name: str) -> None:
    """Without the tables that all 8-bit tensors share."""
    config = build_config({"optimizer": name, "learning_rate": 1.0 if name == "Prodigy" else 1e-4})
    shapes = [(64, 128), (16, 128), (64,)]
    weights = [nn.Parameter(torch.ones(shape)) for shape in shapes]
    optimizer = make_optimizer(config, weights)
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    kept = [value for state in optimizer.state.values() for key, value in state.items() if not key.startswith("qmap")]
    measured = sum(value.nbytes for value in kept if isinstance(value, torch.Tensor) and value.numel() > 1)
    assert state_bytes(name, shapes) == measured


# ---- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"optimizer": "adamw8bit"}, "did you mean AdamW8bit"),
        ({"optimizer": "Adam"}, "expected AdamW8bit, AdamW"),
        ({"optimizer": "Prodigy"}, "set learning_rate: 1.0"),
        ({"optimization": {"optimizer_args": {"lr": 1e-3}}}, "set learning_rate"),
        ({"optimization": {"optimizer_args": {"weight_decay": 0.1}}}, "set optimization.weight_decay"),
        ({"optimizer": "Adafactor", "optimization": {"optimizer_args": {"relative_step": True}}}, "its own rate"),
    ],
)
def test_settings_that_do_not_go_together_are_refused_in_the_config(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build_config(values)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"optimization": {"optimizer_args": {"betas": [0.9, 0.99], "momentum": 0.5}}}, "takes no momentum .it takes"),
        ({"optimization": {"optimizer_args": {"betas": [2.0, 0.99]}}}, "refuses its arguments.*beta"),
        ({"optimizer": "PagedAdamW8bit"}, "needs a CUDA device"),
        ({"optimization": {"optimizer_args": {"is_paged": True}}}, "needs a CUDA device"),
        ({"optimizer": "bitsandbytes.optim.PagedLion8bit"}, "needs a CUDA device"),
        ({"optimizer": "torch.optim.NoSuch"}, "no such class"),
        ({"optimizer": "torch.nn.Linear"}, "no torch.optim.Optimizer"),
        ({"optimizer": "torch.optim.LBFGS"}, "cannot be used here"),
        ({"optimizer": "no_such_package.Optimizer"}, "no_such_package, which is not installed"),
    ],
)
def test_what_cannot_be_used_is_refused_by_check_and_before_anything_is_prepared(
    make_config: Callable[..., RunConfig], tmp_path: Path, values: dict[str, Any], said: str
) -> None:
    config = make_config(**{"optimizer": "AdamW8bit", **values})
    with pytest.raises(ConfigError, match=said):
        check(config, "my.yaml", tmp_path)
    with pytest.raises(ConfigError, match=said):
        prepare(config, lambda _event: None, lambda: pytest.fail("it went on"))


def test_a_missing_library_is_named_with_its_line_and_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("learning_rate: 1.0\noptimizer: Prodigy\n")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "prodigyopt" else object())
    with pytest.raises(ConfigError, match=r"my\.yaml:2: optimizer: .*pip install prodigyopt"):
        absolute(build_config({"learning_rate": 1.0, "optimizer": "Prodigy"}), file)


FOREIGN = """
import random
import torch

class Base(torch.optim.Optimizer):
    def __init__(self, params, lr=1e-3, tempo=1.0):
        super().__init__(params, {"lr": lr, "tempo": tempo})
        self.count = 0

    def scale(self, state):
        return 1.0

    def step(self, closure=None):
        for group in self.param_groups:
            for weight in group["params"]:
                weight.data.add_(weight.grad, alpha=-group["lr"] * group["tempo"] * self.scale(self.state[weight]))

class Good(Base):
    def scale(self, state):
        state["steps"] = state.get("steps", 0) + 1
        return 1 / state["steps"]

class Forgets(Base):
    def scale(self, state):
        self.count += 1
        return 1 / self.count

class Draws(Base):
    def scale(self, state):
        return random.random()

class KeepsAnObject(Base):
    def scale(self, state):
        state["own"] = object()
        return 1.0

class ScheduleFree(Base):
    def train(self): ...
    def eval(self): ...
"""


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package of optimizers, installed as pip does."""
    (tmp_path / "foreign_optimizers.py").write_text(FOREIGN)
    info = tmp_path / "foreign_optimizers-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: foreign-optimizers\nVersion: 1.0\n")
    (info / "top_level.txt").write_text("foreign_optimizers\n")
    (info / "RECORD").write_text("foreign_optimizers.py,,\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("foreign_optimizers", None)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Forgets", "goes on differently after its state was saved"),
        ("Draws", "goes on differently after its state was saved"),
        ("KeepsAnObject", "holds a object, which cannot be saved without pickle"),
        ("ScheduleFree", "trains other weights than it evaluates"),
    ],
)
@pytest.mark.usefixtures("foreign")
def test_a_class_whose_state_would_not_come_back_exactly_is_refused(name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        require_usable(build_config({"optimizer": f"foreign_optimizers.{name}"}), CPU)


@pytest.mark.usefixtures("foreign")
def test_an_installed_class_is_used_with_its_arguments() -> None:
    config = build_config({"optimizer": "foreign_optimizers.Good", "optimization": {"optimizer_args": {"tempo": 0.5}}})
    require_usable(config, CPU)
    optimizer = make_optimizer(config, [nn.Parameter(torch.ones(2))])
    assert optimizer.param_groups[0]["tempo"] == 0.5


@pytest.mark.usefixtures("foreign")
def test_weight_decay_for_a_class_that_has_none_is_refused() -> None:
    values = {"optimizer": "foreign_optimizers.Good", "optimization": {"weight_decay": 0.1}}
    with pytest.raises(ConfigError, match=r"optimization\.weight_decay has no effect"):
        require_usable(build_config(values), CPU)


def test_a_module_that_is_not_of_an_installed_package_is_not_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lying_about.py").write_text("raise SystemExit('it was run')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match="not an installed package"):
        require_usable(build_config({"optimizer": "lying_about.Optimizer"}), CPU)


def test_the_probe_tells_what_a_foreign_class_keeps() -> None:
    assert require_restorable(build_config({"optimizer": "torch.optim.Adam"}), CPU) == pytest.approx(8, abs=0.1)

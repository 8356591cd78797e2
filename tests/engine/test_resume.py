"""A resumed run is the run that was never interrupted: every number of every step and every tensor, to the last bit."""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exactly import all_equal, everything, poison_the_global_generators, trace, train, weights_of
from PIL import Image
from torch import Tensor

from acrf_engine.config import RunConfig, dump
from acrf_engine.model import lora, tensor_file
from acrf_engine.model.adapter import from_training
from acrf_engine.model.formats import to_diffusers
from acrf_engine.run.folder import RunFolder, create_run
from acrf_engine.training import checkpoint
from acrf_engine.training.checkpoint import CheckpointError, Snapshot
from acrf_engine.training.identity import MismatchError
from acrf_engine.training.parking import move
from acrf_engine.training.preparation import Prepared, prepare
from acrf_engine.training.previews import draw_previews
from acrf_engine.training.schedule import Ramp
from acrf_engine.training.trainer import Trainer

Make = Callable[..., Trainer]
Change = Callable[[Trainer], None]

STEPS = 8
EPOCH = 4  # four pictures, one to a step
# Rank 64, so that AdamW8bit really keeps 8-bit state; every checkpoint is kept.
BASE: dict[str, Any] = {
    "network_dim": 64,
    "network_alpha": 32,
    "gradient_accumulation": 1,
    "steps": STEPS,
    "scheduler": "constant",
    "checkpoint": {"keep": 1000},
}
EXTRAS: dict[str, Any] = {"data": {"flip": True, "caption_dropout": 0.5}, "optimization": {"ema_decay": 0.9}}
KINDS: dict[str, dict[str, Any]] = {
    "AdamW": {"optimizer": "AdamW"},
    "AdamW8bit": {"optimizer": "AdamW8bit"},
    "AdamW with everything": {"optimizer": "AdamW", **EXTRAS},
    "AdamW8bit with everything": {"optimizer": "AdamW8bit", **EXTRAS},
    "DoRA": {"optimizer": "AdamW", "lora": {"use_dora": True, "use_rslora": True, "dropout": 0.3}, **EXTRAS},
}


class Runs:
    """Runs of the tiny model in one folder. The transformer is loaded once a data set, and copied for every trainer."""

    def __init__(self, home: Path, make_config: Callable[..., RunConfig]) -> None:
        self.home = home
        self.said: list[Any] = []
        self._make_config = make_config
        self._prepared: dict[str, Prepared] = {}
        self._open: list[Trainer] = []

    def trainer(self, name: str, **values: Any) -> Trainer:
        """A trainer as a fresh process has it; the same `name` resumes that run. Global generators are poisoned."""
        config = self._make_config(**{**BASE, **values})
        path = self.home / name
        folder = RunFolder(path) if path.exists() else create_run(path.parent, name, dump(config))
        # All else of a config is read by the trainer itself.
        key = config.model_copy(update={"steps": None, "optimizer": "AdamW"}).model_dump_json()
        if key not in self._prepared:
            self._prepared[key] = prepare(config, lambda _event: None, lambda: None)
        poison_the_global_generators()
        self.said = []
        trainer = Trainer(config, folder, copy.deepcopy(self._prepared[key]), self.said.append)
        self._open.append(trainer)
        return trainer

    def copied(self, name: str, to: str, at: int) -> Path:
        """A copy of a run as it was left after step `at`."""
        target = self.home / to
        shutil.rmtree(target, ignore_errors=True)

        def left_out(folder: str, names: list[str]) -> list[str]:
            later = [name for name in names if name.startswith("step-") and checkpoint.step_of(Path(name)) > at]
            return later if Path(folder).name == "checkpoints" else names if Path(folder).name == "lora" else []

        shutil.copytree(self.home / name, target, ignore=left_out)
        return target

    def straight(self, name: str, steps: int, changes: dict[int, Change] | None = None, **values: Any) -> Straight:
        """A run without interruption, a checkpoint after every step; `changes` act after the step they stand at."""
        trainer = self.trainer(name, **{"steps": steps, **values})
        rows, ends = [], [everything(trainer)]
        for step in range(steps):
            if changes and step in changes:
                changes[step](trainer)
                trainer.save_checkpoint()
            rows += trace(train(trainer, 1))
            trainer.save_checkpoint()
            ends.append(copy.deepcopy(everything(trainer)))
        trainer.close()
        return Straight(name, rows, ends, values)

    def close(self) -> None:
        for trainer in self._open:
            trainer.close()
        self._open.clear()


@dataclass(frozen=True)
class Straight:
    """A run without interruption: a row for every step, and all tensors before the first step and after each."""

    name: str
    rows: list[list[str]]
    ends: list[dict[str, Any]]
    values: dict[str, Any]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, make_config: Callable[..., RunConfig]) -> Runs:
    return Runs(tmp_path_factory.mktemp("runs"), make_config)


@pytest.fixture(autouse=True)
def _no_loader_process_stays(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "runs" in request.fixturenames:
        request.getfixturevalue("runs").close()


@pytest.fixture(scope="module", params=list(KINDS))
def straight(request: pytest.FixtureRequest, runs: Runs) -> Straight:
    """Two steps more than a run of STEPS: what that run would be, extended."""
    return runs.straight(request.param.replace(" ", "-"), STEPS + 2, **KINDS[request.param])


# ---- the same run ----------------------------------------------------------------------------------------------------


def test_two_straight_runs_are_equal(runs: Runs, straight: Straight) -> None:
    again = runs.straight(f"{straight.name}-again", STEPS + 2, **straight.values)
    assert again.rows == straight.rows
    assert all(all_equal(a, b) for a, b in zip(again.ends, straight.ends, strict=True))


@pytest.mark.parametrize(
    "at", [1, 3, EPOCH, STEPS], ids=["after the first step", "in an epoch", "at an epoch's edge", "extended at its end"]
)
def test_a_resumed_run_is_equal(runs: Runs, straight: Straight, at: int) -> None:
    runs.copied(straight.name, "resumed", at)
    resumed = runs.trainer("resumed", **{"steps": STEPS + 2, **straight.values})
    assert resumed.step == at
    assert all_equal(everything(resumed), straight.ends[at])
    assert trace(train(resumed, STEPS + 2 - at)) == straight.rows[at:]
    assert all_equal(everything(resumed), straight.ends[-1])
    assert runs.said == []


def test_a_finished_run_that_is_extended_goes_on_as_if_it_had_been_longer(runs: Runs, straight: Straight) -> None:
    """With a constant learning rate; any other schedule plans for the number of steps."""
    finished = runs.straight("finished", STEPS, **straight.values)
    assert finished.rows == straight.rows[:STEPS]
    extended = runs.trainer("finished", **{"steps": STEPS + 2, **straight.values})
    assert trace(train(extended, 2)) == straight.rows[STEPS:]
    assert all_equal(everything(extended), straight.ends[-1])
    shutil.rmtree(runs.home / "finished")


def test_a_resume_of_a_resume_is_equal(runs: Runs, straight: Straight) -> None:
    """Every step in a trainer of its own."""
    runs.copied(straight.name, "resumed", 2)
    for step in range(2, 7):
        resumed = runs.trainer("resumed", **{"steps": STEPS + 2, **straight.values})
        assert resumed.step == step
        assert trace(train(resumed, 1)) == straight.rows[step : step + 1]
        resumed.save_checkpoint()
    assert all_equal(everything(resumed), straight.ends[7])


@pytest.mark.parametrize("kind", ["AdamW", "AdamW8bit"])
@pytest.mark.parametrize("ramp", [0, 4], ids=["at once", "over a ramp"])
def test_a_resume_after_a_live_change_of_the_learning_rate_is_equal(runs: Runs, kind: str, ramp: int) -> None:
    """Changed after step 2. Resumed right there, in the ramp, and after it."""

    def change(trainer: Trainer) -> None:
        trainer.ramp = Ramp(trainer.step, ramp, trainer.peak_rate()) if ramp else None
        trainer.settings.learning_rate = 4e-4

    run = runs.straight(f"changed-{kind}-{ramp}", STEPS, {2: change}, **KINDS[kind])
    assert len({row[5] for row in run.rows}) == (1 + ramp if ramp else 2)
    for at in (2, 4, 7):
        runs.copied(run.name, "resumed", at)
        resumed = runs.trainer("resumed", **run.values)
        assert trace(train(resumed, STEPS - at)) == run.rows[at:]
        assert all_equal(everything(resumed), run.ends[-1])


@pytest.mark.parametrize(
    ("before", "after"), [(2, 2), (0, 2), (2, 0), (1, 2)], ids=lambda count: f"{count} loader processes"
)
def test_any_number_of_loader_processes_trains_the_same_run_before_and_after_a_resume(
    runs: Runs, before: int, after: int
) -> None:
    def values(num_workers: int) -> dict[str, Any]:
        return {**KINDS["AdamW8bit with everything"], "data": {**EXTRAS["data"], "num_workers": num_workers}}

    whole = runs.straight("no-workers", 6, **values(0))
    shutil.rmtree(runs.home / whole.name)
    name = f"workers-{before}-{after}"
    first = runs.trainer(name, **values(before))
    assert trace(train(first, 3)) == whole.rows[:3]
    first.save_checkpoint()
    first.close()
    second = runs.trainer(name, **values(after))
    assert trace(train(second, 3)) == whole.rows[3:]
    assert all_equal(everything(second), whole.ends[-1])


def test_loader_processes_follow_a_skipped_step_and_a_rollback(runs: Runs) -> None:
    def rows(num_workers: int) -> list[list[str]]:
        trainer = runs.trainer(f"jumps-{num_workers}", data={"num_workers": num_workers}, optimizer="AdamW")
        taken = train(trainer, 2)
        trainer.save_checkpoint()
        trainer.skip_step()
        taken += train(trainer, 2)
        assert trainer.roll_back()
        taken += train(trainer, 2)
        trainer.close()
        return trace(taken)

    assert rows(2) == rows(0)


RESUME = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from exactly import everything, poison_the_global_generators, trace, train
from safetensors.torch import save_file
from torch import Tensor
from acrf_engine.config import load_config
from acrf_engine.run.folder import RunFolder
from acrf_engine.training.preparation import prepare
from acrf_engine.training.trainer import Trainer

folder = RunFolder(Path(sys.argv[1]))
config = load_config(folder.config)
poison_the_global_generators()
trainer = Trainer(config, folder, prepare(config, print, lambda: None), print)
rows = trace(train(trainer, config.steps - trainer.step))
end = everything(trainer)
save_file({name: value for name, value in end.items() if isinstance(value, Tensor)}, sys.argv[3])
trainer.close()
Path(sys.argv[3]).with_suffix(".json").write_text(json.dumps({"rows": rows, "structure": end["structure"]}))
"""


def test_a_run_resumed_in_a_fresh_process_is_equal(runs: Runs, tmp_path: Path) -> None:
    """With two loader processes, where the straight run had none."""
    from safetensors.torch import load_file

    values = KINDS["AdamW8bit with everything"]
    run = runs.straight("whole", 6, **values)
    folder = runs.copied(run.name, "fresh-process", 3)
    text = (folder / "config.yaml").read_text()
    assert "num_workers: 0" in text
    (folder / "config.yaml").write_text(text.replace("num_workers: 0", "num_workers: 2"))
    out = tmp_path / "end.safetensors"
    subprocess.run([sys.executable, "-c", RESUME, str(folder), str(Path(__file__).parent), str(out)], check=True)
    told = json.loads(out.with_suffix(".json").read_text())
    assert told["rows"] == run.rows[3:]
    assert all_equal({**load_file(out), "structure": told["structure"]}, json_like(run.ends[-1]))


def json_like(end: dict[str, Any]) -> dict[str, Any]:
    return {**end, "structure": json.loads(json.dumps(end["structure"]))}


# ---- every part of a checkpoint matters ------------------------------------------------------------------------------

AT = 4


def set_everything(trainer: Trainer) -> None:
    """After this no part of the state has the value that a fresh run has."""
    trainer.skip_step()
    settings = trainer.settings
    trainer.ramp = Ramp(trainer.step, 6, trainer.peak_rate())
    settings.learning_rate = 4e-4
    settings.max_grad_norm = 1e-3
    settings.snr_gamma = 1e-3
    settings.jitter_scale = 0.01
    settings.lambda_char, settings.lambda_cos, settings.lambda_fft = 0.8, 0.3, 0.2


@dataclass(frozen=True)
class Subject:
    """A straight run, its checkpoint of step AT, and what a run has before its first step."""

    run: Straight
    saved: Snapshot
    fresh: Snapshot


@pytest.fixture(scope="module", params=["AdamW", "AdamW8bit"])
def subject(request: pytest.FixtureRequest, runs: Runs) -> Subject:
    values = KINDS[f"{request.param} with everything"]
    run = runs.straight(f"subject-{request.param}", AT + 2, {2: set_everything}, **values)
    runs.trainer(f"fresh-{request.param}", **{"steps": AT + 2, **values}).save_checkpoint()
    saved = checkpoint.read(runs.home / run.name / "checkpoints" / f"step-{AT:06d}")
    fresh = checkpoint.read(runs.home / f"fresh-{request.param}" / "checkpoints" / "step-000000")
    return Subject(run, saved, fresh)


def resume_from(runs: Runs, subject: Subject, snapshot: Snapshot) -> Trainer:
    """Resume where this is the only checkpoint."""
    folder = runs.copied(subject.run.name, "mutated", -1) / "checkpoints"
    checkpoint.write(folder, AT, snapshot)
    return runs.trainer("mutated", **{"steps": AT + 2, **subject.run.values})


def is_the_same_run(runs: Runs, subject: Subject, snapshot: Snapshot) -> bool:
    """Whether the run goes on from `snapshot` as it should. Raises what refuses it."""
    resumed = resume_from(runs, subject, snapshot)
    rows = trace(train(resumed, 2))
    return rows == subject.run.rows[AT:] and all_equal(everything(resumed), subject.run.ends[-1])


def without(values: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    rest = dict(values)
    if len(path) == 1:
        del rest[path[0]]
    else:
        rest[path[0]] = without(values[path[0]], path[1:])
    return rest


def replaced(values: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    inner = value if len(path) == 1 else replaced(values[path[0]], path[1:], value)
    return {**values, path[0]: inner}


def value_at(values: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        values = None if values is None else values[key]
    return values


def state_paths(subject: Subject) -> list[tuple[str, ...]]:
    """Every key of the state, and the keys inside; config and environment are compared as a whole.

    `dataset_parts` only says what of the data has changed, where `dataset` shows that something has.
    """
    state = {key: value for key, value in subject.saved.state.items() if key != "dataset_parts"}
    groups = [key for key, value in state.items() if isinstance(value, dict) and key not in ("config", "environment")]
    return [*((key,) for key in state), *((key, inner) for key in groups for inner in state[key])]


def test_the_checkpoint_itself_goes_on(runs: Runs, subject: Subject) -> None:
    """The counterpart of what follows: nothing left out, nothing put in its place."""
    assert is_the_same_run(runs, subject, subject.saved)


def test_a_checkpoint_without_any_one_key_of_its_state_is_refused(runs: Runs, subject: Subject) -> None:
    for path in state_paths(subject):
        incomplete = dataclasses.replace(subject.saved, state=without(subject.saved.state, path))
        with pytest.raises(CheckpointError, match="none of the 1 checkpoints can be used"):
            is_the_same_run(runs, subject, incomplete)


def test_where_a_key_is_missing_the_checkpoint_before_wins(runs: Runs, subject: Subject) -> None:
    folder = runs.copied(subject.run.name, "mutated", AT)
    incomplete = dataclasses.replace(subject.saved, state=without(subject.saved.state, ("balance", "means")))
    checkpoint.write(folder / "checkpoints", AT, incomplete)
    resumed = runs.trainer("mutated", **{"steps": AT + 2, **subject.run.values})
    assert resumed.step == AT - 1
    (warning,) = runs.said
    assert f"step-{AT:06d}: incomplete: no good balance.means in state.json; trying the one before" in warning.message
    assert trace(train(resumed, 3)) == subject.run.rows[AT - 1 :]


ANOTHER: dict[str, Callable[[Any], Any]] = {
    "anchors": lambda anchors: anchors[::-1],
    "config": lambda config: {**config, "seed": 1},
    "dataset": lambda fingerprint: fingerprint[::-1],
    "environment": lambda versions: {**versions, "torch": "0"},
}
"""For keys that a fresh run has too: what another run would have there."""


def test_another_value_for_any_one_key_of_the_state_is_noticed(runs: Runs, subject: Subject) -> None:
    for path in state_paths(subject):
        value, fresh = value_at(subject.saved.state, path), value_at(subject.fresh.state, path)
        if value == fresh:
            fresh = ANOTHER[path[0]](value)
        changed = dataclasses.replace(subject.saved, state=replaced(subject.saved.state, path, fresh))
        try:
            same = is_the_same_run(runs, subject, changed)
        except CheckpointError:
            continue
        warned = any("not bit for bit" in event.message for event in runs.said)
        assert warned is (path == ("environment",)), path
        assert warned or not same, f"{path} could be another without anyone noticing"


def test_without_any_one_of_its_files_a_checkpoint_is_refused(runs: Runs, subject: Subject) -> None:
    """On the disk, and left out of the manifest as well, as if it had never been written."""
    names = {path.name for path in (runs.home / subject.run.name / "checkpoints" / f"step-{AT:06d}").iterdir()}
    assert "ema.safetensors" in names
    for name in names:
        path = runs.copied(subject.run.name, "mutated", -1) / "checkpoints" / f"step-{AT:06d}"
        checkpoint.write(path.parent, AT, subject.saved)
        (path / name).unlink()
        if name != checkpoint.MANIFEST:
            manifest = json.loads((path / checkpoint.MANIFEST).read_text())
            del manifest["files"][name]
            (path / checkpoint.MANIFEST).write_text(json.dumps(manifest))
        with pytest.raises(CheckpointError, match="none of the 1 checkpoints can be used"):
            runs.trainer("mutated", **{"steps": AT + 2, **subject.run.values})


@pytest.mark.parametrize("file", ["lora", "ema"])
def test_every_kind_of_tensor_of_the_lora_and_of_its_average_matters(runs: Runs, subject: Subject, file: str) -> None:
    tensors, fresh = getattr(subject.saved, file), getattr(subject.fresh, file)
    kinds = {name.partition(".lora_")[2] for name in tensors}
    assert kinds == {"A.weight", "B.weight"}
    for kind in kinds:
        reset = {name: fresh[name] if name.endswith(kind) else value for name, value in tensors.items()}
        assert not is_the_same_run(runs, subject, dataclasses.replace(subject.saved, **{file: reset}))
        name = next(name for name in tensors if name.endswith(kind))
        rest = {other: value for other, value in tensors.items() if other != name}
        with pytest.raises(lora.LoraError, match="modules differ"):
            is_the_same_run(runs, subject, dataclasses.replace(subject.saved, **{file: rest}))
        # As bf16 it would be off by less than a tolerance would show.
        rounded = {name: value.bfloat16().float() for name, value in tensors.items()}
        assert not is_the_same_run(runs, subject, dataclasses.replace(subject.saved, **{file: rounded}))


def test_every_kind_of_entry_of_the_optimizer_matters(runs: Runs, subject: Subject) -> None:
    """Reset for all parameters, left out of all, and left out of one; and the state as a whole."""
    saved = subject.saved
    state = saved.optimizer["state"]
    kinds = {path for entries in state.values() for path in paths_in(entries)}
    names = {path[-1] for path in kinds}
    assert names > ({"exp_avg", "exp_avg_sq"} if "exp_avg" in names else {"state1", "state2", "qmap1", "absmax2"})

    def noticed(new: dict[Any, Any]) -> bool:
        optimizer = {**saved.optimizer, "state": new}
        try:
            return not is_the_same_run(runs, subject, dataclasses.replace(saved, optimizer=optimizer))
        except (CheckpointError, KeyError, RuntimeError, ValueError, AttributeError):
            return True

    assert noticed({})
    assert noticed(dict(list(state.items())[1:]))
    for kind in kinds:
        reset = {
            index: replaced(entries, kind, zero(value_at(entries, kind))) if kind in paths_in(entries) else entries
            for index, entries in state.items()
        }
        assert noticed(reset), f"{kind} could be reset without anyone noticing"
        rest = {
            index: without(entries, kind) if kind in paths_in(entries) else entries for index, entries in state.items()
        }
        assert noticed(rest), f"{kind} could be missing without anyone noticing"


def paths_in(values: dict[str, Any]) -> list[tuple[str, ...]]:
    """Where its numbers and tensors are; AdamW8bit keeps most of them one level down."""
    return [
        (name, *rest)
        for name, value in values.items()
        for rest in (paths_in(value) if isinstance(value, dict) else [()])
    ]


def zero(value: Any) -> Any:
    return torch.zeros_like(value) if isinstance(value, Tensor) else type(value)(0)


def test_without_its_groups_an_optimizer_is_refused(runs: Runs, subject: Subject) -> None:
    optimizer = {"state": subject.saved.optimizer["state"]}
    with pytest.raises(CheckpointError, match="none of the 1 checkpoints can be used"):
        is_the_same_run(runs, subject, dataclasses.replace(subject.saved, optimizer=optimizer))
    (warning,) = runs.said
    assert f"step-{AT:06d}: incomplete: no good optimizer.param_groups in state.json; trying" in warning.message


# ---- it goes on with what was set ------------------------------------------------------------------------------------


def test_what_was_set_live_survives_a_resume(make_trainer: Make) -> None:
    trainer = make_trainer()
    train(trainer, 1)
    trainer.settings.learning_rate = 5e-5
    trainer.settings.lambda_fft = 0.0
    trainer.settings.snr_gamma = 1.0
    trainer.save_checkpoint()
    expected = trace(train(trainer, 2))

    resumed = make_trainer()
    assert resumed.settings == trainer.settings
    assert trace(train(resumed, 2)) == expected


def test_a_ramp_of_the_learning_rate_goes_on_where_it_stood(make_trainer: Make) -> None:
    trainer = make_trainer(scheduler="constant", gradient_accumulation=1)
    train(trainer, 1)
    trainer.settings.learning_rate = 5e-5
    trainer.ramp = Ramp(start=1, steps=5, previous=1e-4)
    first, second = train(trainer, 2)
    assert (first.lr, second.lr) == (pytest.approx(9e-5), pytest.approx(8e-5))
    trainer.save_checkpoint()

    resumed = make_trainer(scheduler="constant", gradient_accumulation=1)
    rates = [step.lr for step in train(resumed, 4)]
    assert rates == pytest.approx([7e-5, 6e-5, 5e-5, 5e-5])


def test_a_config_changed_for_the_resume_wins_over_what_was_set_live(make_trainer: Make) -> None:
    trainer = make_trainer()
    train(trainer, 1)
    trainer.settings.learning_rate = 5e-5
    trainer.settings.snr_gamma = 1.0
    trainer.save_checkpoint()
    resumed = make_trainer(learning_rate=2e-4)
    assert resumed.settings.learning_rate == 2e-4
    assert resumed.settings.snr_gamma == 1.0


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 5}, "seed"),
        ({"network_dim": 8}, "network_dim"),
        ({"batch_size": 2}, "batch_size"),
        ({"optimizer": "AdamW8bit"}, "optimizer"),
        ({"lora": {"targets": "ext"}}, "lora.targets"),
        ({"anchors": {"source": "pipeline"}}, "anchors.source"),
        ({"data": {"flip": True}}, "data.flip"),
        ({"data": {"caption_dropout": 0.1}}, "data.caption_dropout"),
        ({"optimization": {"ema_decay": 0.9}}, "optimization.ema_decay"),
        ({"validation": {"holdout": 1}}, "validation.holdout"),
    ],
)
def test_a_changed_config_is_refused_by_name(make_trainer: Make, change: dict[str, Any], named: str) -> None:
    trainer = make_trainer()
    train(trainer, 1)
    trainer.save_checkpoint()
    with pytest.raises(CheckpointError, match=rf"config\.yaml: {named} changed since step-000001"):
        make_trainer(**change)


def test_what_does_not_shape_the_run_may_change(make_trainer: Make) -> None:
    trainer = make_trainer(validation={"holdout": 1})
    train(trainer, 1)
    trainer.save_checkpoint()
    resumed = make_trainer(
        steps=30,
        checkpoint={"every": 7},
        preview={"every": 3},
        validation={"holdout": 1, "every": 5},
        data={"num_workers": 1},
    )
    assert (resumed.step, resumed.total_steps) == (1, 30)


@pytest.mark.parametrize("change", ["a caption", "a picture", "one more"])
def test_a_changed_data_set_is_refused(make_trainer: Make, photo_folder: Path, tmp_path: Path, change: str) -> None:
    data = Path(shutil.copytree(photo_folder, tmp_path / "data"))
    trainer = make_trainer(dataset=str(data))
    train(trainer, 1)
    trainer.save_checkpoint()
    if change == "a caption":
        (data / "rocket.txt").write_text("a launch")
    else:
        target = data / ("rocket.png" if change == "a picture" else "new.png")
        Image.new("RGB", (64, 64), "red").save(target)
    with pytest.raises(
        CheckpointError, match=f"^the {'captions' if change == 'a caption' else 'pictures'} changed since step-000001"
    ):
        make_trainer(dataset=str(data))


def test_other_anchors_are_refused(make_trainer: Make, tiny_model: Path, tmp_path: Path) -> None:
    """The config names the same model, but its scheduler has been changed since."""
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    trainer = make_trainer(model=str(model))
    train(trainer, 1)
    trainer.save_checkpoint()
    scheduler = model / "scheduler" / "scheduler_config.json"
    scheduler.write_text(json.dumps({**json.loads(scheduler.read_text()), "shift": 1.5}))
    with pytest.raises(MismatchError, match=r"the anchors changed since step-000001: the model's scheduler.*new run"):
        make_trainer(model=str(model))


def test_a_checkpoint_from_before_there_were_these_groups_is_read(make_trainer: Make) -> None:
    trainer = make_trainer()
    train(trainer, 1)
    trainer.save_checkpoint()
    expected = trace(train(trainer, 2))
    path = trainer.folder.checkpoints / "step-000001"
    saved = checkpoint.read(path)
    config = without(without(saved.state["config"], ("data",)), ("optimization", "ema_decay"))
    checkpoint.write(path.parent, 1, dataclasses.replace(saved, state={**saved.state, "config": config}))
    assert trace(train(make_trainer(), 2)) == expected


# ---- the moving average ----------------------------------------------------------------------------------------------


def averaging(make_trainer: Make, **values: Any) -> Trainer:
    return make_trainer(optimization={"ema_decay": 0.9}, gradient_accumulation=1, learning_rate=1e-2, **values)


def averages_of(trainer: Trainer) -> dict[str, Tensor]:
    assert trainer.ema is not None
    names = lora.weights(trainer.prepared.transformer)
    return {name: value.clone() for name, value in zip(names, trainer.ema.shadow_params, strict=True)}


def test_the_average_follows_the_weights_and_does_not_change_the_training(make_trainer: Make) -> None:
    """From update 2 on, decay min(0.9, n / (9 + n)) with n the updates before."""
    trainer = averaging(make_trainer)
    expected: dict[str, Tensor] = {}
    for step in range(4):
        train(trainer, 1)
        decay = min(0.9, (1 + step) / (10 + step)) if step else 0.0
        now = weights_of(trainer)
        expected = {name: decay * expected.get(name, value) + (1 - decay) * value for name, value in now.items()}
    for name, average in averages_of(trainer).items():
        torch.testing.assert_close(average, expected[name], rtol=1e-5, atol=1e-7)
    plain = make_trainer("plain", gradient_accumulation=1, learning_rate=1e-2)
    train(plain, 4)
    assert all_equal(weights_of(plain), weights_of(trainer))


def test_lora_files_hold_the_average_and_checkpoints_both(make_trainer: Make) -> None:
    trainer = averaging(make_trainer)
    train(trainer, 3)
    raw, averages = weights_of(trainer), averages_of(trainer)
    assert not all_equal(raw, averages)
    saved = trainer.save_checkpoint()
    trainer.save_lora(trainer.folder.final_lora())
    for path in (Path(saved.lora), trainer.folder.final_lora()):
        scale = trainer.config.network_alpha / trainer.config.network_dim
        written, metadata = tensor_file.read(path)
        assert all_equal(written, to_diffusers(from_training(averages, scale)))
        assert metadata["acrf_weights"] == "moving average (decay 0.9)"
    snapshot = checkpoint.read(Path(saved.path))
    assert snapshot.ema is not None
    assert all_equal(snapshot.lora, raw)
    assert all_equal(snapshot.ema, averages)
    assert all_equal(weights_of(trainer), raw)


def test_previews_draw_the_average_and_training_goes_on_from_the_raw_weights(make_trainer: Make) -> None:
    preview = {"steps": 1, "prompts": ["a photo"]}
    trainer = averaging(make_trainer, preview=preview)
    train(trainer, 3)
    raw = weights_of(trainer)
    (drawn,) = draw_previews(trainer)
    assert all_equal(weights_of(trainer), raw)

    averaged = make_trainer("averaged", preview=preview)
    lora.load_weights(averaged.prepared.transformer, averages_of(trainer))
    averaged.step = trainer.step
    (expected,) = draw_previews(averaged)
    lora.load_weights(averaged.prepared.transformer, raw)
    pixels = np.asarray(Image.open(drawn.path))
    assert np.array_equal(pixels, np.asarray(Image.open(expected.path)))
    (of_raw,) = draw_previews(averaged)
    assert not np.array_equal(pixels, np.asarray(Image.open(of_raw.path)))


def test_a_rollback_brings_the_average_back(make_trainer: Make) -> None:
    trainer = averaging(make_trainer)
    train(trainer, 2)
    trainer.save_checkpoint()
    saved = averages_of(trainer)
    rest = trace(train(trainer, 2))
    after = averages_of(trainer)
    assert trainer.roll_back()
    assert all_equal(averages_of(trainer), saved)
    assert trace(train(trainer, 2)) == rest
    assert all_equal(averages_of(trainer), after)


def test_the_average_moves_with_the_model_and_keeps_every_bit(make_trainer: Make) -> None:
    """`meta` stands for another device: nothing of the average may stay behind."""
    trainer = averaging(make_trainer)
    train(trainer, 2)
    before = averages_of(trainer)
    move(trainer, torch.device("cpu"))
    assert all_equal(averages_of(trainer), before)
    move(trainer, torch.device("meta"))
    assert trainer.ema is not None
    assert {value.device.type for value in trainer.ema.shadow_params} == {"meta"}

"""The LoRA of the lowest validation loss stays, whatever happens to its run; and epochs end with a checkpoint."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest
from injections import at_step, spoil
from nursery import Body, Child, Nursery

from acrf_engine.run.lora_files import metadata_of, newest_lora
from acrf_engine.run.lora_report import look, rows
from acrf_engine.run.telemetry import TelemetryReader
from acrf_tui.cli import main
from acrf_tui.state import RunState

CONFIG: dict[str, Any] = {
    "steps": 10,
    "learning_rate": 1e-3,
    "validation": {"holdout": 2, "every": 2},
    "checkpoint": {"every": 2, "keep": 2},
}


def ruin(trainer: Any) -> None:
    """What a run that goes wrong does to its LoRA, at once."""
    import torch

    with torch.no_grad():
        for weight in trainer.prepared.trainable:
            weight.add_(1.0)


ruined = partial(at_step, 6, ruin)


def lowest(validations: list[Body]) -> Body:
    return min((body for body in validations if body["step"] > 0), key=lambda body: float(body["loss"]))


def assert_best(run: Child, wanted: Body) -> None:
    """The file holds the LoRA of that step, and says so."""
    path = run.folder.best_lora()
    said = metadata_of(path)
    assert (int(said["ss_steps"]), float(said["acrf_validation_loss"])) == (wanted["step"], wanted["loss"])
    assert look(path).hash == look(run.folder.step_lora(wanted["step"])).hash


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made = Nursery(tmp_path_factory.mktemp("best"))
    run = made.start(**CONFIG, inject=ruined)
    try:
        assert run.end() == 0, run.log()
        yield run
    finally:
        made.abandon()


def test_the_best_lora_is_kept_when_later_ones_are_worse(straight: Child) -> None:
    """It is told with step and loss, checkpoints rotate without it, and it is nobody's newest LoRA."""
    validations = straight.of("validation")
    best = lowest(validations)
    assert best["step"] in (2, 4, 6)
    assert_best(straight, best)
    assert [body["step"] for body in straight.of("best")][-1] == best["step"]
    assert len(straight.checkpoints()) == 2
    assert newest_lora(straight.folder) == straight.folder.final_lora()


def test_an_app_and_the_list_of_runs_and_inspect_show_it(straight: Child, capsys: pytest.CaptureFixture[str]) -> None:
    best = lowest(straight.of("validation"))
    state = RunState()
    state.load(TelemetryReader(straight.folder.telemetry).history())
    assert state.best is not None
    assert (state.best.step, state.best.loss) == (best["step"], best["loss"])
    assert main(["runs", "--runs", str(straight.folder.path.parent), "--json"]) == 0
    (row,) = (row for row in json.loads(capsys.readouterr().out) if row["folder"] == str(straight.folder.path))
    assert row["best"] == {"step": best["step"], "loss": best["loss"]}
    assert main(["runs", "--runs", str(straight.folder.path.parent)]) == 0
    assert f"{best['loss']:.4f} @{best['step']}" in capsys.readouterr().out
    said = dict(rows(look(straight.folder.best_lora())))
    assert said["validation"].startswith(f"loss {best['loss']!r} on 2 held-out pictures at step {best['step']}")


def test_it_is_the_same_after_a_death_and_a_resume(nursery: Nursery, straight: Child) -> None:
    """Killed just after the best was measured, and before a checkpoint holds it."""
    best = lowest(straight.of("validation"))
    run = nursery.start(**{**CONFIG, "checkpoint": {"every": 0}}, inject=ruined)
    run.until(lambda body: body["type"] == "best" and body["step"] == best["step"])
    run.kill_worker()
    run.end()
    assert run.recorded()["extra"]["best"]["step"] == best["step"]
    run.start(checkpoint={"every": 1}, inject=ruined)
    assert run.end() == 0, run.log()
    assert_best(run, best)
    assert run.of("best") == []  # none was lower


def test_a_rollback_leaves_it(nursery: Nursery, straight: Child) -> None:
    """With half the rate from there on: another run, so another LoRA may be lower, but never a worse one."""
    best = lowest(straight.of("validation"))
    run = nursery.start(
        **{**CONFIG, "safety": {"non_finite": "rollback"}, "checkpoint": {"every": 1}},
        inject=partial(at_step, best["step"] + 1, partial(spoil, "gradient", float("nan")), times=1),
    )
    assert run.end() == 0, run.log()
    assert any("back from step" in body["message"] for body in run.of("warning"))
    assert_best(run, lowest(run.of("validation")))


def test_an_epoch_that_ends_is_saved_once_also_over_a_death(nursery: Nursery) -> None:
    """16 pictures, three to a step: epochs end within steps 6, 11 and 16."""
    config: dict[str, Any] = {"steps": 18, "gradient_accumulation": 3}
    run = nursery.start(**config, checkpoint={"every": 0, "every_epochs": 1, "keep": 1000})
    run.until_step(8)
    run.kill_worker()
    run.end()
    assert run.checkpoints() == [6]
    run.start()
    assert run.end() == 0, run.log()
    assert run.checkpoints() == [6, 11, 16, 18]
    assert [metadata_of(run.folder.step_lora(step))["ss_epoch"] for step in (6, 16)] == ["1.125", "3"]
    other = nursery.start(**config, checkpoint={"every": 10, "every_epochs": 2, "keep": 1000})
    assert other.end() == 0
    assert other.checkpoints() == [10, 11, 18]


def test_without_keep_best_there_is_none(nursery: Nursery) -> None:
    run = nursery.start(steps=4, validation={"holdout": 2, "every": 2, "keep_best": False})
    assert run.end() == 0
    assert not run.folder.best_lora().exists()
    assert run.of("best") == []

"""What trackers are told, what they are not, and that a slow one is nobody's trouble."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from accelerate import Accelerator

from acrf_engine.config import ConfigError, build_config, dump
from acrf_engine.protocol import Plan, Step, Validation, WarningEvent
from acrf_engine.run.folder import RunFolder, create_run
from acrf_engine.tracking import tracking
from acrf_engine.tracking.csv_tracker import CsvTracker
from acrf_engine.tracking.metrics import hyperparameters, names, of_step, of_validation
from acrf_engine.tracking.tracking import Tracking

STEP = Step(
    step=7, total_steps=20, epoch=1.5, loss=0.5, loss_char=0.4, loss_cos=0.3, loss_fft=0.2, loss_balanced=0.6, lr=1e-4,
    grad_norm=2.0, step_time_s=0.1, sigmas=[0.9, 0.9, 0.2], anchors=[1, 1, 3], weights=[1.0, 1.0, 0.7],
    losses=[0.2, 0.4, 0.9],
)  # fmt: skip


def plan(start: int) -> Plan:
    return Plan(
        model="tiny", device="CPU", dtype="fp32", pictures=4, buckets={}, batch_size=1, gradient_accumulation=1,
        micro_batches_per_epoch=4, total_steps=20, start_step=start, anchors=[1.0, 0.9, 0.5, 0.2], snr_gamma=5.0,
        weighting="min_snr", jitter_scale=0.02, trainable_parameters=1, base_parameters=1, lora_modules=1, rank=1,
        alpha=1.0, optimizer="AdamW", scheduler="cosine", learning_rate=1e-4, lambda_char=1.0, lambda_cos=0.1,
        lambda_fft=0.1, max_grad_norm=1.0, versions={},
    )  # fmt: skip


class Tracked:
    """Tracking of a run in a folder, with what it says."""

    def __init__(self, home: Path, *trackers: str, **values: Any) -> None:
        config = build_config({"logging": {"trackers": list(trackers), **values}})
        path = home / "night"
        self.folder = RunFolder(path) if path.exists() else create_run(home, "night", dump(config))
        self.said: list[Any] = []
        self.tracking = Tracking(config, self.folder, self.said.append)

    def steps(self, first: int, last: int) -> None:
        for step in range(first, last + 1):
            self.tracking.report(dataclasses.replace(STEP, step=step, loss=step / 100))

    def warnings(self) -> list[str]:
        return [event.message for event in self.said if isinstance(event, WarningEvent)]


def test_metrics_have_the_names_that_users_look_for() -> None:
    values = of_step(STEP)
    assert (values["train/loss"], values["train/lr"], values["train/grad_norm"]) == (0.5, 1e-4, 2.0)
    assert values["train/loss_anchor_01"] == pytest.approx(0.3)
    assert values["train/loss_anchor_03"] == 0.9
    assert "train/loss_anchor_00" not in values  # not drawn: no number is made up for it
    assert set(values) <= set(names("train", 4))
    measured = of_validation(Validation(7, 0.25, [0.1, 0.2, 0.3, 0.4], 3, 1.0))
    assert list(measured) == names("validation", 4)
    assert measured["validation/loss"] == 0.25


def test_the_config_is_handed_over_without_what_may_be_secret() -> None:
    config = build_config({"on_finish": "curl https://example.org/?token=secret", "lora": {"targets": ["to_q$"]}})
    given = hyperparameters(config, [1.0, 0.5])
    assert given["lora.targets"] == '["to_q$"]'
    assert given["steps"] == "none"
    assert given["anchors.sigmas"] == "[1.0, 0.5]"
    assert all(isinstance(value, bool | int | float | str) for value in given.values())
    assert "secret" not in str(given)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"trackers": ["csv", "csv"]}, "twice"),
        ({"project": "mine"}, "project has no effect"),
        ({"trackers": ["csv"], "wandb_mode": "online"}, "wandb_mode has no effect"),
        ({"every": 10}, "every has no effect"),
        ({"trackers": ["mlflow"]}, "tensorboard"),
    ],
)
def test_settings_without_effect_are_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build_config({"logging": values})


def test_a_missing_library_is_named_with_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert build_config({"logging": {"trackers": ["csv", "wandb"]}}).logging.missing() == (
        "wandb is not installed (pip install wandb)"
    )


def test_only_every_so_many_steps_are_handed_over_and_always_the_last(tmp_path: Path) -> None:
    tracked = Tracked(tmp_path, "csv", every=6)
    tracked.tracking.report(plan(0))
    tracked.steps(1, 20)
    tracked.tracking.close()
    lines = (tracked.folder.trackers / "csv" / "train.csv").read_text(encoding="utf-8").splitlines()
    assert [line.partition(",")[0] for line in lines] == ["step", "6", "12", "18", "20"]
    assert len(tracked.said) == 21


def test_a_tracker_that_hangs_keeps_nobody_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the steps nor the end; what it missed is counted."""
    released = threading.Event()
    monkeypatch.setattr(CsvTracker, "log", lambda *_, **__: released.wait(60))
    monkeypatch.setattr(tracking, "WAITING", 50)
    monkeypatch.setattr(tracking, "FINISH_S", 0.2)
    tracked = Tracked(tmp_path, "csv")
    tracked.tracking.report(plan(0))
    began = time.monotonic()
    tracked.steps(1, 1000)
    tracked.tracking.close()
    assert time.monotonic() - began < 30
    assert len([event for event in tracked.said if isinstance(event, Step)]) == 1000
    assert any("not done after" in message for message in tracked.warnings())
    assert any("too slow for 9" in message for message in tracked.warnings())
    released.set()


def test_a_loss_that_is_not_finite_is_not_drawn_as_a_number(tmp_path: Path) -> None:
    tracked = Tracked(tmp_path, "csv")
    tracked.tracking.report(plan(0))
    tracked.tracking.report(Validation(0, math.nan, [math.nan] * 4, 3, 1.0))
    tracked.tracking.close()
    assert (tracked.folder.trackers / "csv" / "validation.csv").read_text(encoding="utf-8").splitlines()[1] == (
        "0,nan,nan,nan,nan,nan"
    )


@pytest.mark.parametrize("tracker", ["wandb", "trackio"])
def test_a_track_that_cannot_be_taken_back_leaves_out_the_steps_that_it_has(tmp_path: Path, tracker: str) -> None:
    """Offline, in the run folder: killed at step 9, resumed from step 5."""
    if importlib.util.find_spec(tracker) is None:  # trackio reads its folder when it is imported
        pytest.skip(f"{tracker} is not installed")
    Accelerator(cpu=True)  # as a trainer has it
    for start, last in ((0, 9), (5, 12)):
        tracked = Tracked(tmp_path, tracker)
        tracked.tracking.report(plan(start))
        tracked.steps(start + 1, last)
        tracked.tracking.close()
        assert tracked.warnings() == []
    read = wandb_steps if tracker == "wandb" else trackio_steps
    assert read(tracked.folder.trackers / tracker) == [(step, step / 100) for step in range(1, 13)]


def wandb_steps(folder: Path) -> list[tuple[int, float]]:
    from wandb.proto import wandb_internal_pb2

    found = []
    for path in sorted(folder.rglob("*.wandb")):
        for data in wandb_records(path.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            if record.HasField("history"):
                values = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
                found.append((int(values["_step"]), float(values["train/loss"])))
    return found


def wandb_records(raw: bytes) -> Iterator[bytes]:
    """The records of an offline file, a log in the format of LevelDB: blocks of 32 KiB behind a head of 7 bytes."""
    at, record = 7, b""
    while at + 7 <= len(raw):
        if 32768 - at % 32768 < 7:  # the rest of a block is filled with zeros
            at += 32768 - at % 32768
            continue
        length, kind = struct.unpack_from("<HB", raw, at + 4)
        record += raw[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


def trackio_steps(folder: Path) -> list[tuple[int, float]]:
    import json
    import sqlite3

    (database,) = folder.glob("*.db")
    with sqlite3.connect(database) as db:
        rows = db.execute("SELECT step, metrics FROM metrics ORDER BY step").fetchall()
    return [(step, json.loads(metrics)["train/loss"]) for step, metrics in rows]

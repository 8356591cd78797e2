"""A run's numbers read at a bounded number of steps: true where all is read, cheap where there is too much."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import pytest

from acrf_engine.run.curves import MOST_POINTS, WINDOW, Curve, read_curve, sparkline, stamp_of, typical_step_time
from acrf_engine.run.folder import RunFolder, create_run
from acrf_engine.run.telemetry import TelemetryReader, TelemetryWriter
from acrf_engine.run.wire import to_wire
from tests.engine.test_telemetry import plan, step


class Written:
    """A run folder with a history that the real writer writes."""

    def __init__(self, runs: Path, name: str = "one") -> None:
        self.folder: RunFolder = create_run(runs, name, "model: tiny\n")
        self.writer = TelemetryWriter(self.folder.telemetry)
        self.seq = 0

    def steps(self, first: int, last: int, **changes: Any) -> None:
        for number in range(first, last + 1):
            given = {key: value(number) if callable(value) else value for key, value in changes.items()}
            self.record(step(number, **given))
        self.writer.commit()

    def record(self, event: Any) -> None:
        self.seq += 1
        self.writer.record(to_wire(event) | {"seq": self.seq, "time": 1000.0 + self.seq})

    def many(self, count: int, interval: float = 0.5) -> None:
        """A long history, faster than event by event."""
        db = self.writer._db
        names = "seq, step, time, loss, loss_balanced, step_time_s, pictures"
        rows = (
            (n, n, 1000.0 + n, 1 / n, 1 / n, interval, '{"anchors": [], "losses": []}') for n in range(1, count + 1)
        )
        db.execute("BEGIN")
        db.executemany(f"INSERT INTO steps ({names}) VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        db.execute("COMMIT")
        self.seq = count


def test_a_short_sparkline_is_the_mean_of_every_part(tmp_path: Path) -> None:
    run = Written(tmp_path)
    run.steps(1, 100, loss_balanced=lambda n: float(n))
    assert sparkline(run.folder, 4) == [13.0, 38.0, 63.0, 88.0]  # means of 1..25, 26..50, ...
    assert sparkline(run.folder, 1000) == [float(n) for n in range(1, 101)]


def test_one_loss_that_is_not_finite_is_seen_in_the_sparkline(tmp_path: Path) -> None:
    run = Written(tmp_path)
    run.steps(1, 100, loss=lambda n: math.nan if n == 30 else 0.5)
    assert [math.isnan(value) for value in sparkline(run.folder, 10)] == [number == 2 for number in range(10)]


def test_a_run_without_steps_or_without_telemetry_has_no_curve(tmp_path: Path) -> None:
    run = Written(tmp_path)
    assert sparkline(run.folder, 10) == []
    assert len(read_curve(run.folder)) == 0
    assert typical_step_time(run.folder)[1] == 0
    bare = create_run(tmp_path, "bare", "model: tiny\n")
    assert sparkline(bare, 10) == []
    assert not bare.telemetry.exists()
    bare.telemetry.write_bytes(b"no database at all" * 1000)
    assert sparkline(bare, 10) == []
    assert len(read_curve(bare)) == 0


def test_looking_at_an_ended_run_leaves_nothing_behind(tmp_path: Path) -> None:
    run = Written(tmp_path)
    run.steps(1, 20)
    run.writer.close()
    before = sorted(path.name for path in run.folder.path.iterdir())
    assert len(sparkline(run.folder, 5)) == 5
    assert len(read_curve(run.folder)) == 20
    assert sorted(path.name for path in run.folder.path.iterdir()) == before


def test_what_a_living_writer_has_committed_is_seen_at_once(tmp_path: Path) -> None:
    run = Written(tmp_path)
    with run.folder.hold():
        run.steps(1, 20)
        stamp = stamp_of(run.folder)
        assert len(read_curve(run.folder)) == 20
        assert stamp_of(run.folder) == stamp
        run.steps(21, 30)
        assert stamp_of(run.folder) != stamp
        assert len(read_curve(run.folder)) == 30


def test_a_long_sparkline_ends_with_the_newest_steps_and_costs_no_more(tmp_path: Path) -> None:
    short, long = Written(tmp_path, "short"), Written(tmp_path, "long")
    short.many(1_000)
    long.many(100_000)
    points = sparkline(long.folder, 20)
    assert len(points) == 20
    assert points == sorted(points, reverse=True)
    assert points[-1] == pytest.approx(math.fsum(1 / n for n in range(100_001 - WINDOW, 100_001)) / WINDOW)

    def seconds(run: Written) -> float:
        begun = time.perf_counter()
        for _ in range(20):
            sparkline(run.folder, 20)
        return time.perf_counter() - begun

    seconds(short)
    assert min(seconds(long) for _ in range(3)) < 5 * min(seconds(short) for _ in range(3))


def test_a_curve_holds_every_number_of_every_step(tmp_path: Path) -> None:
    run = Written(tmp_path)
    run.steps(1, 60, loss=lambda n: math.nan if n == 7 else n / 3)
    curve, whole = read_curve(run.folder), TelemetryReader(run.folder.telemetry).history().steps
    for name in ("step", "loss_balanced", "loss", "loss_char", "lr", "grad_norm"):
        assert getattr(curve, name).tolist() == pytest.approx(getattr(whole, name).tolist(), nan_ok=True)
    assert curve.elapsed[-1] == pytest.approx(60 * 0.05)
    assert curve.step_seconds() == 0.05


def test_a_curve_goes_on_from_what_is_known(tmp_path: Path) -> None:
    run = Written(tmp_path)
    run.steps(1, 20)
    curve = read_curve(run.folder)
    run.steps(21, 30)
    assert read_curve(run.folder, curve) is curve
    assert curve.step.tolist() == list(range(1, 31))


def test_after_a_resume_the_steps_made_anew_count(tmp_path: Path) -> None:
    run = Written(tmp_path)
    run.steps(1, 20, loss=1.0)
    curve = read_curve(run.folder)
    run.record(plan(10))
    run.steps(11, 25, loss=2.0)
    fresh = read_curve(run.folder, curve)
    assert fresh.step.tolist() == list(range(1, 26))
    assert fresh.loss.tolist() == [1.0] * 10 + [2.0] * 15


def test_a_pause_is_no_training_time(tmp_path: Path) -> None:
    run = Written(tmp_path)
    run.steps(1, 5, step_time_s=2.0)
    run.seq += 5000  # an hour and more until the next step
    run.steps(6, 10, step_time_s=2.0)
    assert read_curve(run.folder).elapsed.tolist() == [2.0 * n for n in range(1, 11)]


def test_a_long_curve_is_bounded_and_its_time_is_about_right(tmp_path: Path) -> None:
    run = Written(tmp_path)
    run.many(100_000)
    curve = read_curve(run.folder)
    assert MOST_POINTS * 0.9 < len(curve) <= 2 * MOST_POINTS
    assert curve.step[1] - curve.step[0] == curve.stride == 25
    assert curve.elapsed[-1] == pytest.approx(0.5 * curve.step[-1])
    assert typical_step_time(run.folder) == (0.5, 200)


def test_a_step_time_that_is_not_finite_does_not_spoil_the_time() -> None:
    curve = Curve()
    for number, seconds in enumerate((1.0, None, 1.0), start=1):
        curve.append((number, 1000.0, *([0.5] * 7), seconds))
    assert curve.elapsed.tolist() == [1.0, 1.0, 2.0]
    assert curve.step_seconds() == 1.0

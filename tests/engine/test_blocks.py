"""The older part of a long run in blocks: never wrong, whatever happened to the steps, and made anew where missing."""

from __future__ import annotations

import contextlib
import math
import random
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acrf_engine.protocol import Pictures, Plan, Step
from acrf_engine.run import blocks, telemetry
from acrf_engine.run.columns import STEP_COLUMNS, StepColumns
from acrf_engine.run.telemetry import TelemetryReader, TelemetryWriter
from acrf_engine.run.wire import to_wire

B = blocks.BLOCK_STEPS


def step(number: int, rng: random.Random) -> Step:
    loss = math.nan if rng.random() < 0.05 else rng.lognormvariate(0, 1)
    return Step(
        number, 10_000, number / 7, loss, rng.random(), rng.random(), rng.random(), rng.random(), 1e-4, rng.random(),
        0.05, [0.5], [rng.randrange(3)], [1.0], [loss],
    )  # fmt: skip


def plan(start_step: int) -> Plan:
    return Plan(
        model="m", device="CPU", dtype="float32", pictures=1, buckets={}, batch_size=1, gradient_accumulation=2,
        micro_batches_per_epoch=1, total_steps=100, start_step=start_step, anchors=[1.0, 0.5, 0.1], snr_gamma=5.0,
        weighting="min_snr", jitter_scale=0.02, trainable_parameters=1, base_parameters=1, lora_modules=1, rank=1,
        alpha=1.0, optimizer="AdamW", scheduler="cosine", learning_rate=1e-4, lambda_char=1.0, lambda_cos=0.1,
        lambda_fft=0.1, max_grad_norm=1.0, versions={},
    )  # fmt: skip


class Store:
    """A history as the supervisor writes it, over several attempts."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "telemetry.db"
        self.rng = random.Random(0)
        self.seq = 0
        self.writer = TelemetryWriter(self.path)

    def say(self, *events: Any) -> None:
        for event in events:
            self.seq += 1
            self.writer.record(to_wire(event) | {"seq": self.seq, "time": 1000.0 + self.seq})

    def train(self, first: int, last: int) -> None:
        self.say(*(step(number, self.rng) for number in range(first, last + 1)))

    def reopen(self, *, clean: bool = True) -> None:
        if clean:
            self.writer.close()
        else:  # as a kill does: what was not committed is gone
            self.writer._db.close()
        self.writer = TelemetryWriter(self.path)

    def commit(self, times: int = 1) -> None:
        for _ in range(times):
            self.writer.commit()

    def kept(self) -> dict[int, tuple[bytes, list[Any]]]:
        with contextlib.closing(sqlite3.connect(self.path)) as db:
            anchors: dict[int, list[Any]] = {}
            for block, *row in db.execute("SELECT * FROM block_anchors ORDER BY block, anchor"):
                anchors.setdefault(block, []).append(row)
            found = {block: (body, anchors.pop(block, [])) for block, body in db.execute("SELECT * FROM blocks")}
            assert not anchors, "anchors of blocks that are not kept"
            return found

    def made_anew(self) -> dict[int, tuple[bytes, list[Any]]]:
        """The blocks of a copy in which none was kept."""
        copy = self.path.with_name("copy.db")
        copy.unlink(missing_ok=True)
        with contextlib.closing(sqlite3.connect(self.path)) as db, contextlib.closing(sqlite3.connect(copy)) as other:
            db.backup(other)
            other.execute("DELETE FROM blocks")
            for block in blocks.missing(other):
                blocks.store(other, block)
            other.commit()
        here, self.path = self.path, copy
        try:
            return self.kept()
        finally:
            self.path = here


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def same(a: StepColumns, b: StepColumns) -> bool:
    return all(getattr(a, name).tobytes() == getattr(b, name).tobytes() for name in STEP_COLUMNS)


ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("train"), st.integers(1, 3 * B)),
        st.tuples(st.just("resume"), st.integers(0, 4 * B)),
        st.tuples(st.just("pictures"), st.integers(1, 2 * B)),
        st.tuples(st.just("reopen"), st.booleans()),
        st.tuples(st.just("commit"), st.just(0)),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=30, deadline=None)
@given(ACTS)
def test_whatever_happens_to_the_steps_no_block_is_wrong_and_none_stays_missing(
    tmp_path_factory: pytest.TempPathFactory, acts: list[tuple[str, int]]
) -> None:
    store, last = Store(tmp_path_factory.mktemp("store")), 0
    for act, number in acts:
        if act == "train":
            store.train(last + 1, last + number)
            last += number
        elif act == "resume" and number <= last:
            store.say(plan(number))
            last = number
        elif act == "pictures" and number <= last:
            store.say(Pictures(number, [0.5], [1], [1.0], [0.25]))
        elif act == "reopen":
            store.reopen(clean=bool(number))
            top = store.writer._db.execute("SELECT max(step) FROM steps").fetchone()[0]
            last = int(top or 0)
        store.commit()
        assert store.kept().items() <= store.made_anew().items()
    store.commit(3)
    assert store.kept() == store.made_anew()


def test_a_history_of_an_older_version_gets_its_blocks_when_the_run_goes_on(store: Store) -> None:
    store.train(1, 20 * B)
    store.commit()
    whole = store.kept()
    with contextlib.closing(sqlite3.connect(store.path)) as db:
        for name in ("step_added", "step_changed", "step_gone", "block_gone"):
            db.execute(f"DROP TRIGGER {name}")
        db.execute("DROP TABLE blocks")
        db.execute("DROP TABLE block_anchors")
        db.commit()
    reader = TelemetryReader(store.path)
    assert len(reader.history(condensed=True).steps.step) == 20 * B, "an app reads it as it is"
    store.reopen()
    store.commit(3)
    assert store.kept() == whole


def test_a_step_whose_pictures_are_lost_is_no_obstacle(store: Store) -> None:
    store.train(1, 3 * B)
    store.writer._db.execute("UPDATE steps SET pictures = NULL WHERE step = 5")
    store.writer._db.execute("UPDATE steps SET pictures = '{' WHERE step = ?", (B + 5,))
    store.reopen()
    store.train(3 * B + 1, 5 * B)
    store.commit(3)
    assert sorted(store.kept()) == [0, 1, 2, 3, 4]
    assert len(TelemetryReader(store.path).history(condensed=True).steps.step) == 5 * B


def test_an_older_version_that_writes_leaves_no_wrong_block(store: Store) -> None:
    store.train(1, 4 * B)
    store.commit()
    with contextlib.closing(sqlite3.connect(store.path)) as db:  # it knows of no blocks
        db.execute("DELETE FROM steps WHERE step > ?", (2 * B + 5,))
        db.commit()
    assert sorted(store.kept()) == [0, 1]


def test_steps_of_a_short_run_come_whole_and_those_of_a_long_one_in_fewer_rows(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.train(1, 30 * B)
    store.commit()
    reader = TelemetryReader(store.path)
    full = reader.history()
    assert same(full.steps, reader.history(condensed=True).steps)

    monkeypatch.setattr(telemetry, "WHOLE_STEPS", 10 * B)
    monkeypatch.setattr(telemetry, "NEWEST_STEPS", 4 * B)
    history = reader.history(condensed=True)
    seam = 26 * B
    assert history.exact_from == seam
    newest = [number for number in history.steps.step if number >= seam]
    assert newest == [float(number) for number in range(seam, 30 * B + 1)]
    assert len(history.steps.step) == 26 * blocks.ROWS + len(newest)
    assert list(history.steps.step) == sorted(set(history.steps.step))
    assert max(v for v in history.steps.loss if v == v) == max(v for v in full.steps.loss if v == v)
    assert (history.anchor_draws, history.anchor_loss) == (full.anchor_draws, full.anchor_loss)
    assert history.recent == full.recent
    assert same(reader.steps(3 * B, 4 * B - 1), _rows(full.steps, 3 * B, 4 * B - 1))
    assert len(reader.steps(0, 30 * B, limit=50).step) == 50


def test_where_blocks_are_missing_steps_stand_for_them(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.train(1, 30 * B)
    store.commit()
    with contextlib.closing(sqlite3.connect(store.path)) as db:
        db.execute("DELETE FROM blocks WHERE block BETWEEN 4 AND 11 OR block = 0")
        db.commit()
    monkeypatch.setattr(telemetry, "WHOLE_STEPS", 10 * B)
    monkeypatch.setattr(telemetry, "NEWEST_STEPS", 4 * B)
    monkeypatch.setattr(telemetry, "SAMPLED_STEPS", 2 * B)
    columns = TelemetryReader(store.path).history(condensed=True).steps
    assert list(columns.step) == sorted(set(columns.step))
    sampled = [number for number in columns.step if 4 * B <= number < 12 * B]
    assert 8 * B / 6 < len(sampled) <= 2 * B
    full = TelemetryReader(store.path).history().steps
    at = {number: index for index, number in enumerate(full.step)}
    assert [columns.loss_char[columns.step.index(number)] for number in sampled] == [
        full.loss_char[at[number]] for number in sampled
    ]


@pytest.mark.parametrize("last", [0, 1, 40, 3 * B, 40 * B + 17])
def test_the_map_over_anchors_counts_every_draw_once(store: Store, last: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "FINE_ANCHOR_STEPS", 8 * B)
    monkeypatch.setattr(blocks, "ANCHOR_BUCKETS", 16)
    store.train(1, last)
    store.commit()
    history = TelemetryReader(store.path).history(condensed=True)
    rows = history.anchor_map
    spans = sorted({row[:2] for row in rows})
    assert len(spans) <= 16
    assert [number for first, end in spans for number in range(first, end + 1)] == list(range(1, last + 1))
    for anchor, draws in enumerate(history.anchor_draws):
        mine = [row for row in rows if row[2] == anchor]
        assert sum(row[3] for row in mine) == draws
        assert all(math.isfinite(row[4]) for row in mine if row[3] > 5)


def test_after_a_resume_the_anchors_are_those_of_the_steps_that_are_left(store: Store) -> None:
    store.train(1, 5 * B + 40)
    store.say(plan(3 * B + 20))
    store.commit()
    resumed = TelemetryReader(store.path).history()
    again = blocks.count_anchors(
        (0, text) for (text,) in sqlite3.connect(store.path).execute("SELECT pictures FROM steps")
    )
    assert resumed.anchor_draws == [again[0, anchor][0] for anchor in range(3)]
    for anchor in range(3):
        assert resumed.anchor_loss[anchor] == pytest.approx(again[0, anchor][1] / again[0, anchor][2])


def _rows(columns: StepColumns, first: int, last: int) -> StepColumns:
    chosen = [index for index, number in enumerate(columns.step) if first <= number <= last]
    part = slice(chosen[0], chosen[-1] + 1)
    return StepColumns(*(getattr(columns, name)[part] for name in STEP_COLUMNS))

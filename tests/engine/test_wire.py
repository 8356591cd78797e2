"""Events on the wire: strict JSON, nothing rounded, nothing lost, and never longer than a pipe takes whole."""

from __future__ import annotations

import dataclasses
import json
import math
import queue
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acrf_engine.config import RunConfig
from acrf_engine.protocol import (
    EVENT_TYPES,
    MERGEABLE,
    Ack,
    Device,
    ErrorEvent,
    Event,
    Failed,
    Hardware,
    Pictures,
    Plan,
    StateChanged,
    Step,
    Validation,
    WarningEvent,
)
from acrf_engine.run.link import Reporter, split
from acrf_engine.run.wire import clip_text, encode, from_wire, to_wire

LIMIT = 4000
numbers = st.floats(width=64)


def step(**changes: Any) -> Step:
    values: dict[str, Any] = {
        "step": 3, "total_steps": 40, "epoch": 0.75, "loss": 0.1, "loss_char": 0.2, "loss_cos": 0.3, "loss_fft": 0.4,
        "loss_balanced": 0.5, "lr": 1e-4, "grad_norm": 1.5, "step_time_s": 0.25, "sigmas": [0.5, 0.25],
        "anchors": [1, 2], "weights": [1.0, 0.1], "losses": [0.6, 0.7],
    }  # fmt: skip
    return Step(**{**values, **changes})


def plan(anchors: int) -> Plan:
    return Plan(
        model="m", device="CPU", dtype="float32", pictures=1, buckets={"64x64": 1}, batch_size=1,
        gradient_accumulation=1, micro_batches_per_epoch=1, total_steps=1, start_step=0,
        anchors=[1 / (i + 3) for i in range(anchors)],
        snr_gamma=5.0, weighting="min_snr", jitter_scale=0.02, trainable_parameters=1, base_parameters=1,
        lora_modules=1, rank=1, alpha=1.0, optimizer="AdamW", scheduler="cosine", learning_rate=1e-4,
        lambda_char=1.0, lambda_cos=0.1,
        lambda_fft=0.1, max_grad_norm=1.0, versions={"torch": "2"},
    )  # fmt: skip


def over_the_wire(event: Event) -> Event | None:
    return from_wire(json.loads(encode(to_wire(event))))


def size(event: Event) -> int:
    """Bytes of the event once the supervisor has stamped it."""
    stamped = dataclasses.replace(event, seq=10**12, time=1234567890.123456)
    return len(encode(to_wire(stamped)).encode("utf-8"))


def same(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return a.hex() == b.hex()
    if isinstance(a, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


# ---- numbers ---------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(loss=st.floats(allow_nan=False, allow_infinity=False), losses=st.lists(st.floats(0, 1e3), max_size=5))
def test_floats_arrive_bit_for_bit(loss: float, losses: list[float]) -> None:
    arrived = over_the_wire(step(loss=loss, losses=losses, seq=8, time=1.1))
    assert isinstance(arrived, Step)
    assert same(arrived.loss, loss)
    assert same(arrived.losses, losses)
    assert (arrived.seq, arrived.time) == (8, 1.1)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_travels_as_null_with_a_flag_and_arrives_as_nan(bad: float) -> None:
    body = to_wire(step(loss=bad, losses=[0.5, bad]))
    text = encode(body)
    parsed = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))

    assert parsed["loss"] is None
    assert parsed["losses"] == [0.5, None]
    assert sorted(parsed["non_finite"]) == ["loss", "losses"]
    arrived = from_wire(parsed)
    assert isinstance(arrived, Step)
    assert math.isnan(arrived.loss)
    assert arrived.losses[0] == 0.5
    assert math.isnan(arrived.losses[1])


def test_a_finite_event_carries_no_flag() -> None:
    assert "non_finite" not in to_wire(step())


def test_none_stays_none() -> None:
    ack = over_the_wire(Ack("c1", "pause", True, 3))
    assert isinstance(ack, Ack)
    assert ack.value is None


def test_a_nan_literal_is_never_written() -> None:
    with pytest.raises(ValueError, match=r"not JSON compliant|Out of range"):
        encode({"loss": math.nan})


# ---- versions --------------------------------------------------------------------------------------------------------


def test_every_event_has_type_seq_and_time_and_survives_the_journey() -> None:
    hardware = Hardware([Device(0, "H200", 1, 2, None, 50, 1.5, None)], "note", seq=4, time=5.5)
    for event in (step(), plan(10), hardware, StateChanged("running", 1, 2), Failed(3, "why"), WarningEvent("é 😀 \n")):
        body = json.loads(encode(to_wire(event)))
        assert list(body)[:3] == ["type", "seq", "time"]
        assert over_the_wire(event) == event


def test_each_type_name_belongs_to_one_event() -> None:
    assert {name: cls.type for name, cls in EVENT_TYPES.items()} == {name: name for name in EVENT_TYPES}


def test_events_and_fields_of_a_newer_version_are_passed_over() -> None:
    assert from_wire({"type": "telepathy", "seq": 1, "time": 2.0}) is None
    assert from_wire({}) is None
    body = to_wire(step()) | {"mood": "good"}
    assert from_wire(body) == step()
    hardware = to_wire(Hardware([Device(0, "x")]))
    hardware["devices"][0]["fans"] = 3
    assert from_wire(hardware) == Hardware([Device(0, "x")])


# ---- length ----------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(count=st.sampled_from([0, 1, 31, 32, 33, 64, 512]), value=st.floats(allow_nan=False, allow_infinity=False))
def test_a_step_of_any_number_of_pictures_travels_in_parts_that_hold_them_all(count: int, value: float) -> None:
    """512: a batch of 64 with an accumulation of 8."""
    whole = step(
        sigmas=[1 / (i + 3) for i in range(count)], anchors=[i % 1000 for i in range(count)], weights=[value] * count,
        losses=[-1 / (i + 7) * 1e-300 for i in range(count)],
    )  # fmt: skip
    parts = list(split(whole))
    assert all(size(part) < LIMIT for part in parts)

    head, *rest = [from_wire(json.loads(encode(to_wire(part)))) for part in parts]
    assert isinstance(head, Step)
    assert all(isinstance(part, Pictures) and part.step == whole.step for part in rest)
    for name in ("sigmas", "anchors", "weights", "losses"):
        gathered = [item for part in (head, *rest) for item in getattr(part, name)]
        assert same(gathered, getattr(whole, name))
    assert (head.loss, head.lr, head.step) == (whole.loss, whole.lr, whole.step)


def lines_of(event: Event) -> list[str]:
    """What the worker puts on its queue for an event."""
    line_queue = FullQueue(room=1000)
    Reporter(line_queue)(event)
    return line_queue.lines


@pytest.mark.parametrize("anchors", [1, 10, RunConfig.model_fields["turbo_steps"].metadata[1].le])
def test_the_plan_fits_for_every_number_of_anchors_that_a_config_may_ask_for(anchors: int) -> None:
    said = plan(anchors)
    (line,) = lines_of(said)
    assert len(line.encode()) <= LIMIT
    assert from_wire(json.loads(line)) == said


def test_a_validation_of_the_most_anchors_fits_and_is_never_dropped() -> None:
    anchors = RunConfig.model_fields["turbo_steps"].metadata[1].le
    said = Validation(10**7, 0.1 + 1e-16, [-1 / (i + 7) * 1e-300 for i in range(anchors)], 10_000, 1 / 3)
    (line,) = lines_of(said)
    assert len(line.encode()) <= LIMIT
    assert from_wire(json.loads(line)) == said
    assert Validation.type not in MERGEABLE


@pytest.mark.parametrize("character", ["x", '"', "\n", "\\", "\x1b", "é", "😀"])
def test_an_error_with_the_longest_texts_fits_and_keeps_its_end(character: str) -> None:
    text = character * 5000 + "the reason"
    (line,) = lines_of(ErrorEvent(clip_text(text, 1200), 3, clip_text(text)))
    assert len(line.encode()) <= LIMIT
    arrived = from_wire(json.loads(line))
    assert isinstance(arrived, ErrorEvent)
    assert arrived.message.endswith("the reason")
    assert arrived.traceback.endswith("the reason")


def test_a_warning_about_a_file_with_the_longest_path_fits() -> None:
    path = "/" + "/".join(["d" * 250] * 16)
    (line,) = lines_of(WarningEvent(f"left out: {path}: cannot be decoded"))
    assert len(line.encode()) <= LIMIT
    assert "cannot be decoded" in line


def test_a_clipped_text_keeps_its_end() -> None:
    clipped = clip_text("x" * 5000 + "ValueError: the end", 100)
    assert clipped.endswith("ValueError: the end")
    assert len(clipped.encode()) <= 103
    assert clip_text("short", 100) == "short"


@settings(deadline=None)
@given(text=st.text(max_size=200), limit=st.integers(1, 100))
def test_clipping_never_breaks_a_character(text: str, limit: int) -> None:
    clip_text(text, limit).encode("utf-8", "surrogatepass").decode("utf-8", "surrogatepass")


def test_a_file_name_that_is_no_utf_8_can_be_told_about() -> None:
    """Linux allows any bytes in a name; Python reads them as lone surrogates, which no socket and no SQLite takes."""
    event = WarningEvent("left out: /photos/\udcff\udcfe.png: not a picture")
    (line,) = lines_of(event)
    encode(json.loads(line)).encode("utf-8")


# ---- a reader that stalls --------------------------------------------------------------------------------------------


class FullQueue:
    """A queue with a size, as multiprocessing's is when its reader stands still."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.lines: list[str] = []

    def put_nowait(self, line: str) -> None:
        if len(self.lines) >= self.room:
            raise queue.Full
        self.lines.append(line)

    def read(self) -> list[dict[str, Any]]:
        lines, self.lines = self.lines, []
        return [json.loads(line) for line in lines]

    def cancel_join_thread(self) -> None: ...

    def close(self) -> None: ...


def test_steps_merge_and_say_how_many_while_answers_wait() -> None:
    full = FullQueue(room=2)
    report = Reporter(full)
    for number in range(1, 7):
        report(step(step=number))
    report(Ack("c1", "pause", True, 6))
    report(WarningEvent("careful"))
    assert [body["step"] for body in full.read()] == [1, 2]

    report(step(step=7))
    arrived = full.read()
    assert [body["type"] for body in arrived] == ["ack", "warning"]
    report(step(step=8))
    (last,) = full.read()
    assert (last["step"], last["merged"]) == (8, 5)
    report(step(step=9))
    assert full.read()[0]["merged"] == 0


def test_answers_that_waited_are_handed_over_at_the_end() -> None:
    full = FullQueue(room=1)
    report = Reporter(full)
    report(step())
    for number in range(5):
        report(Ack(f"c{number}", "checkpoint", True, number))
    full.room = 100
    report.close()
    assert [body.get("id") for body in full.read()] == [None, "c0", "c1", "c2", "c3", "c4"]


def test_a_dead_reader_never_holds_the_worker_up() -> None:
    full = FullQueue(room=0)
    report = Reporter(full)
    report(Ack("c1", "stop", True, 1))
    report.close(patience_s=0.05)


def test_a_plan_with_all_that_the_overview_shows_fits() -> None:
    buckets = {f"{1024 + n}x{2048 - n}": 100_000 for n in range(24)} | {"others": 10**6}
    versions = dict.fromkeys(
        ("acrf-tui", "python", "torch", "diffusers", "peft", "accelerate", "bitsandbytes", "device", "threads"),
        "12.34.56.dev0+cu130",
    )
    full = dataclasses.replace(
        plan(50), model="/" + "m" * 250, buckets=buckets, versions=versions, captions_missing=10**6,
        lora_targets="ext and refiners",
    )  # fmt: skip
    assert size(full) < LIMIT
    assert over_the_wire(full) == full


def test_a_plan_of_an_older_version_still_reads() -> None:
    body = to_wire(plan(10))
    del body["captions_missing"], body["lora_targets"]
    older = from_wire(body)
    assert isinstance(older, Plan)
    assert older.captions_missing is None

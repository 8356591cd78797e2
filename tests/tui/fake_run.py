"""A scripted run for the dashboard's tests and for looking at it: `python -m tests.tui.fake_run --gpus 1`."""

from __future__ import annotations

import argparse
import math
import os
import random
import threading
import time
from array import array
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from acrf_engine.protocol import (
    Ack,
    Checkpoint,
    Device,
    Event,
    Failed,
    Finished,
    Hardware,
    Memory,
    Plan,
    Progress,
    StateChanged,
    Step,
    Stopped,
    WarningEvent,
)
from acrf_engine.run.folder import RunFolder
from acrf_engine.run.telemetry import History, StepColumns
from acrf_tui.app import AcrfApp, AppOptions
from acrf_tui.panels.weight import weight
from acrf_tui.screens.dashboard import DashboardScreen
from acrf_tui.themes import DEFAULT_THEME

GIB = 1024**3
ANCHORS = [1.0, 0.960, 0.913, 0.858, 0.790, 0.707, 0.602, 0.465, 0.278, 0.009]
START = 1_790_000_000.0


def make_plan(total: int = 4000, **changes: Any) -> Plan:
    """A plan like the paper's defaults."""
    plan = Plan(
        model="models/Z-Image-Turbo",
        device="cuda:0",
        dtype="bfloat16",
        pictures=24,
        buckets={"1024x1024": 16, "832x1216": 8},
        batch_size=1,
        gradient_accumulation=4,
        micro_batches_per_epoch=24,
        total_steps=total,
        start_step=0,
        anchors=ANCHORS,
        snr_gamma=5.0,
        weighting="min_snr",
        jitter_scale=0.02,
        trainable_parameters=9_830_400,
        base_parameters=6_154_908_736,
        lora_modules=136,
        rank=16,
        alpha=16.0,
        optimizer="AdamW8bit",
        scheduler="cosine_with_restarts",
        learning_rate=1e-4,
        lambda_char=1.0,
        lambda_cos=0.1,
        lambda_fft=0.1,
        max_grad_norm=1.0,
        versions={"acrf-tui": "0.9.0", "python": "3.11.9", "torch": "2.13", "diffusers": "0.36", "peft": "0.18"},
        captions_missing=2,
        lora_targets="std",
    )
    return replace(plan, **changes)


def make_step(number: int, total: int = 4000, rng: random.Random | None = None, **changes: Any) -> Step:
    """One step of a loss that falls slowly and jumps with sigma."""
    rng = rng or random.Random(number)
    anchors = [(number * 4 + picture) * 7 % len(ANCHORS) for picture in range(4)]
    sigmas = [min(1.0, max(0.0, ANCHORS[a] + rng.uniform(-0.02, 0.02))) for a in anchors]
    level = 0.09 + 0.16 * math.exp(-number / 300)
    losses = [level * (0.35 + 2.2 * (1 - sigma) ** 1.5) * rng.lognormvariate(0, 0.25) for sigma in sigmas]
    weights = [weight(sigma, 5.0, "min_snr") for sigma in sigmas]
    char = sum(losses) / 4
    step = Step(
        step=number,
        total_steps=total,
        epoch=number * 4 / 24,
        loss=sum(w * x for w, x in zip(weights, losses, strict=True)) / 4,
        loss_char=char,
        loss_cos=char * 0.3,
        loss_fft=char * 1.4,
        loss_balanced=level * 1.1 + rng.gauss(0, 0.001),
        lr=1e-4 * 0.5 * (1 + math.cos(math.pi * number / total)),
        grad_norm=rng.lognormvariate(-0.9, 0.5),
        step_time_s=0.125 + rng.gauss(0, 0.004),
        sigmas=sigmas,
        anchors=anchors,
        weights=weights,
        losses=losses,
    )
    return replace(step, **changes)


def make_hardware(gpus: int, number: int, *, hot: bool = False, supported: bool = True) -> Hardware:
    """A sample of `gpus` cards, none of them possible."""
    rng = random.Random(number * 31 + gpus)
    if not gpus:
        note = "No NVIDIA driver was found (NVML could not be loaded); training runs on the CPU."
        return Hardware([], note, int(1.2 * GIB + number * 1e6), int(5.1 * GIB), int(15.6 * GIB))
    devices = []
    for index in range(gpus):
        if not supported:
            devices.append(Device(index, "NVIDIA GB10", memory_used=int(21.4 * GIB)))
            continue
        burning = hot and index == gpus - 1
        devices.append(
            Device(
                index,
                "NVIDIA GeForce RTX 4090",
                memory_used=int((23.6 if burning else 17.2 + rng.random() * 0.2) * GIB),
                memory_total=24 * GIB,
                temperature=(88 if burning else 64) + rng.randint(-2, 2),
                utilisation=rng.randint(88, 99),
                power=391.0 + rng.uniform(-30, 30),
                power_limit=450.0,
                clock_sm=1410 if burning else 2520 - rng.randint(0, 90),
                clock_sm_max=3105,
                clock_memory=10_251,
                clock_memory_max=10_501,
                slowed=["too hot", "power limit"] if burning else ["power limit"] if index % 2 else [],
            )
        )
    return Hardware(devices, "", int(2.1 * GIB), int(21 * GIB), int(64 * GIB))


def make_history(steps: int = 0, total: int = 4000, gpus: int = 1, **changes: Any) -> History:
    """The history of a run with a plan and `steps` steps."""
    columns = StepColumns()
    draws, sums = [0] * len(ANCHORS), [0.0] * len(ANCHORS)
    recent = []
    for number in range(1, steps + 1):
        step = make_step(number, total)
        for name in vars(columns):
            column: array[float] = getattr(columns, name)
            column.append(START + number * 0.125 if name == "time" else float(getattr(step, name)))
        for anchor, loss in zip(step.anchors, step.losses, strict=True):
            draws[anchor] += 1
            sums[anchor] += loss
        recent.append(step)
    events: list[Event] = [
        StateChanged("starting", 0, 0, seq=1, time=START - 40),
        StateChanged("caching", 0, 0, seq=2, time=START - 20),
        make_plan(total, seq=3, time=START - 1),
        StateChanged("running", 0, total, seq=4, time=START),
    ]
    if steps >= 200:
        events += [
            Checkpoint(200, "checkpoints/step-000200", 41_200_000, 0.31, seq=5, time=START + 25),
            Ack("c1", "set", True, 220, "", "learning_rate", 1e-4, 2e-4, seq=6, time=START + 27.5),
            WarningEvent("2 pictures have no caption; they train with an empty one", 230, seq=7, time=START + 29),
        ]
    means = [total / count if count else math.nan for total, count in zip(sums, draws, strict=True)]
    hardware = [replace(make_hardware(gpus, n), time=START + n) for n in range(40)] if steps else []
    history = History(
        10 + steps if steps else 0, columns, draws, means, events if steps else [], hardware, recent[-64:]
    )
    return replace(history, **changes)


class FakeSource:
    """A source whose events a test pushes; commands are acknowledged at once and remembered."""

    def __init__(self, history: History | None = None, name: str = "night-run") -> None:
        self.name = name
        self.folder = Path("runs") / name
        self.read_only = False
        self.skew = ""
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.answer: Callable[[str, dict[str, Any]], Ack] = self._acknowledge
        self.state: dict[str, Any] = {"state": "running", "error": None}
        self.seq = 0
        self._history = history if history is not None else make_history()
        self.seq = self._history.last_seq
        self._queue: list[Event] = []
        self._arrived = threading.Condition()
        self._ended = False

    def push(self, *events: Event) -> None:
        """Stamp events as the supervisor would, and deliver them."""
        with self._arrived:
            for event in events:
                self.seq += 1
                self._queue.append(replace(event, seq=self.seq, time=event.time or time.time()))
            self._arrived.notify_all()

    def end(self) -> None:
        """The supervisor is gone."""
        with self._arrived:
            self._ended = True
            self._arrived.notify_all()

    def history(self) -> History:
        return self._history

    def steps(self, first: float, last: float) -> StepColumns:
        return StepColumns()

    def pull(self, after: int, timeout: float) -> list[Event]:
        with self._arrived:
            self._arrived.wait_for(lambda: self._ended or any(e.seq > after for e in self._queue), timeout)
            found = [event for event in self._queue if event.seq > after]
            self._queue = found
            if not found and self._ended:
                raise EOFError("the run has ended")
            return found

    def status(self) -> dict[str, Any]:
        return self.state

    def command(self, name: str, **args: Any) -> Ack:
        self.sent.append((name, args))
        return self.answer(name, args)

    def _acknowledge(self, name: str, args: dict[str, Any]) -> Ack:
        step = self.seq
        ack = Ack(f"c{self.seq}", name, True, step)
        if name == "set":
            ack = replace(ack, key=str(args["key"]), value=float(args["value"]), previous=1e-4)
        states = {"pause": "paused", "resume": "running"}
        if name in states:
            self.push(StateChanged(states[name], step, 4000))
        self.push(ack)
        return ack


class Training(FakeSource):
    """A source that trains by itself in a thread, for looking."""

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(make_history(options.steps, gpus=options.gpus), options.name)
        self.options = options
        self.paused = False
        threading.Thread(target=self._train, daemon=True).start()

    def _acknowledge(self, name: str, args: dict[str, Any]) -> Ack:
        self.paused = {"pause": True, "resume": False}.get(name, self.paused)
        return super()._acknowledge(name, args)

    def _train(self) -> None:
        options = self.options
        plan = make_plan(device="cuda:0" if options.gpus else "cpu", dtype="bfloat16" if options.gpus else "float32")
        if not options.steps:
            self.push(StateChanged("starting", 0, 0))
            time.sleep(0.2)
            self.push(StateChanged("caching", 0, 4000))
            for done in range(25):
                self.push(Progress("caching", done, 24, f"photos/{done:03d}.jpg, 832x1216"))
                time.sleep(0.1 if options.state != "caching" else 3)
        else:
            self.push(StateChanged("starting", options.steps, 4000, attempt=2))
        self.push(plan, StateChanged("running", options.steps, 4000, attempt=1))
        number, last_sample = options.steps, 0.0
        if options.state in ("failed", "finished", "stopped", "interrupted", "paused"):
            self._finish(options.state, number)
            return
        while True:
            if time.time() - last_sample >= 1:
                last_sample = time.time()
                self.push(
                    make_hardware(options.gpus, number, hot=options.hot, supported=not options.not_supported),
                    *([Memory(int(15.9 * GIB), int(16.8 * GIB))] if options.gpus else []),
                )
            time.sleep(1 / options.speed)
            if self.paused:
                continue
            number += 1
            step = make_step(number)
            if options.nan and number % 50 < 10:
                step = replace(step, loss=math.nan, loss_balanced=math.nan)
            self.push(step)
            if number % 200 == 0:
                self.push(Checkpoint(number, f"checkpoints/step-{number:06d}", 41_200_000, 0.31))

    def _finish(self, state: str, number: int) -> None:
        self.push(make_hardware(self.options.gpus, number))
        if state == "paused":
            self.push(StateChanged("paused", number, 4000))
            return
        error = "CUDA out of memory: tried to allocate 512.00 MiB (set memory.offload: true, or a smaller resolution)"
        last: dict[str, Event] = {
            "failed": Failed(number, error),
            "interrupted": Failed(number, "the worker was killed (SIGKILL: out of memory, or kill -9)", "interrupted"),
            "stopped": Stopped(number, "asked by the user"),
            "finished": Finished(number, f"lora/{self.name}.safetensors"),
        }
        self.push(StateChanged(state, number, 4000), last[state])
        self.end()


SYMBOLS = "braille"


class FakeApp(AcrfApp):
    """The app, at the dashboard of a source."""

    CSS_PATH = Path(__file__).parents[2] / "acrf_tui" / "styles" / "app.tcss"

    def __init__(self, source: FakeSource, slow: bool = False, theme_name: str = DEFAULT_THEME) -> None:
        options = AppOptions(source.folder.parent, slow=slow, theme=theme_name, symbols=SYMBOLS)
        super().__init__(options, RunFolder(source.folder), colorless="NO_COLOR" in os.environ)
        self.source = source
        self.dashboard = DashboardScreen(source, slow)

    def open_run(self, folder: RunFolder) -> None:
        self.push_screen(self.dashboard, lambda result: self.exit(result))


def main() -> None:
    """Show a scripted run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpus", type=int, default=1)
    parser.add_argument("--hot", action="store_true")
    parser.add_argument("--not-supported", action="store_true")
    parser.add_argument("--nan", action="store_true")
    parser.add_argument("--slow", action="store_true")
    parser.add_argument("--state", default="running")
    parser.add_argument("--theme", default=DEFAULT_THEME)
    parser.add_argument("--steps", type=int, default=400, help="steps of history")
    parser.add_argument("--speed", type=float, default=8.0, help="steps a second")
    parser.add_argument("--name", default="night-run")
    options = parser.parse_args()
    FakeApp(Training(options), options.slow, options.theme).run()


if __name__ == "__main__":
    main()

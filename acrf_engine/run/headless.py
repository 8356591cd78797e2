"""A run without the app: the same supervisor and worker, with a line printer in the app's place."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import Any, TextIO

from acrf_engine.protocol import LAST_EVENTS
from acrf_engine.run.client import Run, launch
from acrf_engine.run.folder import RunFolder
from acrf_engine.run.telemetry import TelemetryReader
from acrf_engine.run.wire import encode

EXIT_DONE, EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130
PRINT_PERIOD_S = 1.0


def train_headless(folder: RunFolder, as_json: bool, when_busy: str = "", *, seated: bool = False) -> int:
    """Run to the end, printing progress on stderr, and events as JSON lines on stdout where asked.

    SIGINT and SIGTERM checkpoint and stop the run (exit 130); a hang-up changes nothing. Returns the exit status.
    Raises RunError where the run cannot start.
    """
    after = TelemetryReader(folder.telemetry).last_seq()
    stopping = threading.Event()
    # Before the launch: a Ctrl-C in its midst must not leave a run behind that nobody follows.
    signal.signal(signal.SIGINT, lambda *_: stopping.set())
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    run = launch(folder, when_busy, seated=seated)
    threading.Thread(target=_stop_when_asked, args=(run, stopping), daemon=True).start()
    printer = LinePrinter(sys.stderr)
    output: TextIO | None = sys.stdout if as_json else None
    last: dict[str, Any] | None = None
    for body in run.follow(after):
        if output is not None:
            output = _print(output, encode(body))
        printer.show(body)
        if body["type"] in LAST_EVENTS:
            last = body
    if last is None:
        status = folder.read_status()
        print(f"acrf-tui: run {folder.name} is {status.state}: {status.error or 'no reason is known'}", file=sys.stderr)
    return exit_status(last, stopping.is_set())


def exit_status(last: dict[str, Any] | None, interrupted: bool) -> int:
    """0 finished; 130 stopped by the user; 2 config, data or model; 1 anything else."""
    if last is None:
        return EXIT_FAILED
    match last["type"]:
        case "finished":
            return EXIT_DONE
        case "stopped":
            return EXIT_INTERRUPTED if interrupted else EXIT_DONE
        case _:
            return EXIT_USAGE if last.get("kind") == "data" else EXIT_FAILED


class LinePrinter:
    """Progress as plain lines: every event that matters, and a step line about once a second."""

    def __init__(self, stream: TextIO) -> None:
        self._stream: TextIO | None = stream
        self._next = 0.0
        self._phase = ""

    def show(self, body: dict[str, Any]) -> None:
        line = self._line(body)
        if line and self._stream is not None:
            self._stream = _print(self._stream, line)

    def _line(self, body: dict[str, Any]) -> str:
        match body["type"]:
            case "state":
                return f"{body['state']}{': ' + body['reason'] if body['reason'] else ''}"
            case "plan":
                held_out = f" ({body['held_out']} more held out)" if body["held_out"] else ""
                return (
                    f"{body['pictures']} pictures{held_out}, {body['total_steps']} steps of "
                    f"{body['gradient_accumulation']} x {body['batch_size']}"
                    + (f" x {body['num_processes']} processes, " if body["num_processes"] > 1 else ", ")
                    + f"{body['trainable_parameters']:,} trainable parameters on {body['device']}"
                )
            case "progress":
                phase = f"{body['phase']}: {body['detail']}"
                if phase == self._phase or body["phase"] == "saving":
                    return ""
                self._phase = phase
                return phase
            case "step":
                now = time.monotonic()
                if now < self._next and body["step"] < body["total_steps"]:
                    return ""
                self._next = now + PRINT_PERIOD_S
                return _step_line(body)
            case "checkpoint":
                return (
                    f"checkpoint of step {body['step']} saved in {body['seconds']:.2f} s ({body['bytes'] / 1e6:.1f} MB)"
                )
            case "validation":
                return _validation_line(body)
            case "best":
                return f"best LoRA so far, validation loss {body['loss']:.4f}: {body['lora']}"
            case "preview":
                return f"preview: {body['path']}"
            case "warning":
                return f"warning: {body['message']}"
            case "ack":
                return f"{body['command']}: {'' if body['ok'] else 'refused: '}{body['message']}"
            case "failed":
                return f"acrf-tui: {body['error']}"
            case "finished":
                return f"finished: {body['lora']}"
            case "stopped":
                return f"stopped at step {body['step']}: {body['reason']}"
            case _:
                return ""


def _step_line(body: dict[str, Any]) -> str:
    loss = "NaN" if body["loss"] is None else f"{body['loss']:.4f}"
    balanced = "NaN" if body["loss_balanced"] is None else f"{body['loss_balanced']:.4f}"
    return (
        f"step {body['step']}/{body['total_steps']}  loss {loss}  balanced {balanced}  "
        f"lr {body['lr']:.2e}  {body['step_time_s']:.2f} s/step"
    )


def _validation_line(body: dict[str, Any]) -> str:
    loss = "NaN" if body["loss"] is None else f"{body['loss']:.4f}"
    pictures = f"{body['pictures']} picture{'s' if body['pictures'] > 1 else ''}"
    return f"validation at step {body['step']}: loss {loss} on {pictures}, {body['seconds']:.1f} s"


def _print(stream: TextIO, line: str) -> TextIO | None:
    """Print, or return None when the reader is gone (a dropped line, a closed pipe): the run goes on."""
    try:
        stream.write(line + "\n")
        stream.flush()
    except (OSError, ValueError):
        # Python would complain once more at exit, when it flushes a stream that is gone.
        with open(os.devnull, "w", encoding="utf-8") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())
        return None
    return stream


def _stop_when_asked(run: Run, stopping: threading.Event) -> None:
    stopping.wait()
    while True:
        try:
            run.command("stop")
        except ConnectionError:
            if run.run_folder.is_held():
                time.sleep(0.1)
                continue
        return

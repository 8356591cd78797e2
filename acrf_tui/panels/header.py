"""The line at the top: which run, which model, its state in capitals, how long and how long still."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.containers import Horizontal

from acrf_tui.charts.lines import Line, LineView, fit, line, wrap
from acrf_tui.charts.symbols import ASCII, BRAILLE, SymbolSet, symbols_of
from acrf_tui.panels import numbers
from acrf_tui.printable import printable

if TYPE_CHECKING:  # the launchpad shows states too, and needs no run for it
    from acrf_tui.state import RunState

STATES: dict[str, tuple[str, str]] = {
    "starting": ("◌", "accent"),
    "waiting": ("◷", "warn"),
    "caching": ("◔", "accent"),
    "running": ("●", "good"),
    "paused": ("‖", "warn"),
    "stopping": ("◼", "warn"),
    "stopped": ("◼", "warn"),
    "finished": ("✓", "good"),
    "failed": ("✗", "bad"),
    "interrupted": ("✗", "bad"),
}


def state_span(state: str, symbols: SymbolSet = BRAILLE) -> tuple[str, str]:
    """Symbol and state in capitals; without the symbol where the terminal has only ASCII."""
    symbol, role = STATES.get(state, ("?", "muted"))
    sign = "" if symbols is ASCII else f" {symbol}"
    return f"{sign} {state.upper()} ", f"bold reverse {role}"


def next_steps(name: str, state: RunState) -> tuple[str, list[str]]:
    """What an ended run means, and the commands that go on from here."""
    match state.state:
        case "finished":
            return (
                f"Training finished at step {state.step:,}.",
                [
                    f"acrf-tui export {name} --format comfyui --out {name}.safetensors",
                    f"acrf-tui resume {name} --steps N  trains on",
                ],
            )
        case "stopped":
            return f"Stopped at step {state.step:,}; a checkpoint is saved.", [f"acrf-tui resume {name}"]
        case "failed":
            why = state.error or state.reason or "no reason was given"
            return f"Failed: {why}", ["w  shows the log", f"acrf-tui resume {name}  goes on"]
        case _:
            why = state.error or state.reason or "a process went without a word"
            return f"Interrupted: {why}", [f"acrf-tui resume {name}  goes on from the newest good checkpoint"]


class Header(Horizontal):
    """Two views, so that the clock does not resend the name."""

    def __init__(self, name: str, read_only: bool, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.run_name = printable(name)
        self.read_only = read_only
        self.frozen = False
        self._remaining: tuple[tuple[int, str], str] = ((0, ""), "")
        self.trouble = ""
        self.waiting = ""
        """The command that has been sent and not answered yet."""

    def compose(self) -> ComposeResult:
        yield LineView(id="header-run")
        yield LineView(id="header-state")
        yield LineView(id="header-times")

    def paint(self, state: RunState, now: float) -> None:
        """Show the run's name, state and times."""
        left, middle, right = (self.query_one(f"#header-{part}", LineView) for part in ("run", "state", "times"))
        width = left.size.width
        name = fit(self.run_name, max(8, width - 2))
        rest = max(0, width - len(name) - 4)
        model = state.plan.model.rstrip("/").rpartition("/")[2] if state.plan else ""
        detail = f"{model}, {state.plan.device} {state.plan.dtype}" if state.plan else ""
        spans: list[tuple[str, str]] = [(f" {name}", "bold accent")]
        if rest > 12 and detail:
            spans.append((f"  {fit(detail, rest)}", "muted"))
        left.show([line(*spans)])
        marks: list[tuple[str, str]] = [state_span("waiting" if state.waiting else state.state, symbols_of(self))]
        if self.frozen:
            marks.append((" FROZEN", "bold warn"))
        elif self.trouble:
            marks.append((" NO LINK", "bold bad"))
        elif self.waiting and not state.ended:
            marks.append((f" {self.waiting}…", "muted"))
        elif state.parked and not state.ended:
            marks.append((" VRAM FREE", "bold warn"))
        elif self.read_only and not state.ended:
            marks.append((" OBSERVING", "muted"))
        middle.show([line(*marks)])
        elapsed = numbers.duration(state.elapsed(now))
        second = (int(now), state.state)  # once a second, as the progress panel has it
        if second != self._remaining[0]:
            self._remaining = second, "" if state.ended else numbers.remaining(state.eta())
        eta = self._remaining[1]
        room = right.size.width
        text = f"elapsed {elapsed:>8}" + (f"   ETA {eta:>8}" if not state.ended else "")
        if len(text) + 1 > room:
            text = f"{elapsed}" + (f"  ETA {eta}" if eta else "")
        right.show([line((f"{text} ".rjust(room), "text"))])


def banner_lines(name: str, state: RunState, width: int) -> list[Line]:
    """The card of an ended run: what happened, then what to do, on one line where it fits."""
    happened, commands = next_steps(name, state)
    role = STATES.get(state.state, ("", "text"))[1]
    together = "Next:  " + "   or   ".join(commands)
    follow = [together] if len(together) <= width else [f"Next:  {command}" for command in commands]
    first = wrap(happened, max(10, width))[:2]
    return [
        *(line((text, f"bold {role}")) for text in first),
        *(line((fit(text, width), "text")) for text in follow),
    ]

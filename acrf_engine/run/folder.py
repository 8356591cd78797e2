"""The run folder: where things are, who holds it, what state it is in, and how runs are found."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import platformdirs

from acrf_engine.paths import shown_if_not_utf8
from acrf_engine.run.deaths import boot_id
from acrf_engine.run.states import ACTIVE_STATES

APP_NAME = "acrf-tui"
MAX_REMEMBERED = 1000
RUNS_VARIABLE = "ACRF_RUNS"
NAME_PATTERN = re.compile(r"[^\W.][\w.+-]{0,99}")


class RunError(Exception):
    """A run cannot be made, found or taken; the message says which and what to do."""


@dataclass
class Status:
    """status.json: what the run is doing. `eta_s` in seconds; pids are None where there is no such process."""

    state: str = "starting"
    supervisor_pid: int | None = None
    worker_pid: int | None = None
    start_token: str = ""
    step: int = 0
    total_steps: int = 0
    eta_s: float | None = None
    last_checkpoint: str | None = None
    error: str | None = None
    loss: float | None = None
    attempt: int = 0
    created: float = 0.0
    updated: float = 0.0
    elapsed_s: float = 0.0
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def active(self) -> bool:
        return self.state in ACTIVE_STATES

    @property
    def best(self) -> dict[str, Any] | None:
        """Step and validation loss of the best LoRA so far; None before there is one."""
        best = self.extra.get("best")
        if not isinstance(best, dict) or not isinstance(best.get("step"), int):
            return None
        return best if isinstance(best.get("loss"), int | float) else None

    @property
    def waiting(self) -> str:
        """What a run in the line for a device waits for; empty where it does not wait."""
        turn = self.extra.get("waiting")
        if self.state != "starting" or not isinstance(turn, dict):
            return ""
        return f"{turn.get('for')}, number {turn.get('number')} in the line, {turn.get('behind')} uses it"


class RunFolder:
    """Names every file of `runs/<name>/` (see docs/run-folder.md); the only place that spells them."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path).absolute()
        self.name = self.path.name
        self.config = self.path / "config.yaml"
        self.status = self.path / "status.json"
        self.telemetry = self.path / "telemetry.db"
        self.log = self.path / "worker.log"
        self.checkpoints = self.path / "checkpoints"
        self.lora = self.path / "lora"
        self.samples = self.path / "samples"
        self.trackers = self.path / "trackers"
        self.lock = self.path / "lock"
        self.socket = self.path / "socket"
        self.given = self.path / ".given.json"

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r})"

    def final_lora(self) -> Path:
        return self.lora / f"{self.name}.safetensors"

    def best_lora(self) -> Path:
        return self.lora / f"{self.name}-best.safetensors"

    def step_lora(self, step: int) -> Path:
        return self.lora / f"{self.name}-step-{step:06d}.safetensors"

    def read_status(self) -> Status:
        """The state as it truly is: an active state without a living supervisor is `interrupted`.

        Raises RunError where there is no readable status.json.
        """
        status = self.recorded_status()
        if status.active and not self.is_held():
            # The supervisor writes the final state just before it lets go of the lock, so look once more.
            status = self.recorded_status()
            launching = status.supervisor_pid is None and 0 <= time.time() - status.updated < 15
            if status.active and not launching:
                status.state = "interrupted"
                status.error = status.error or _why_gone(status)
        return status

    def recorded_status(self) -> Status:
        """status.json as it stands on disk."""
        try:
            raw = json.loads(self.status.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise RunError(f"{self.path}: not a run folder (no status.json)") from None
        except (OSError, ValueError) as error:
            raise RunError(f"{self.status}: cannot be read ({error}){self._remedy()}") from None
        if not isinstance(raw, dict):
            raise RunError(f"{self.status}: cannot be read (it holds no mapping){self._remedy()}")
        known = get_type_hints(Status)
        for key, value in raw.items():
            if key in known and not _is_a(value, known[key]):
                raise RunError(f"{self.status}: cannot be read ({key} is {value!r}){self._remedy()}")
        return Status(**{key: value for key, value in raw.items() if key in known})

    def _remedy(self) -> str:
        return f"; `acrf-tui resume {self.name}` goes on from its checkpoints" if self.newest_step() else ""

    def newest_step(self) -> int:
        """The step of the newest checkpoint in place, whether it verifies or not; 0 where there is none."""
        names = [path.name.removeprefix("step-") for path in self.checkpoints.glob("step-*")]
        return max((int(name) for name in names if name.isdecimal()), default=0)

    def read_given_keys(self) -> list[str]:
        """The config keys given on the command line of `resume` that no checkpoint holds yet."""
        try:
            return [str(key) for key in json.loads(self.given.read_text(encoding="utf-8"))]
        except (OSError, ValueError):
            return []

    def forget_given_keys(self) -> None:
        """A checkpoint holds what was given: from here on what is set live comes after it, and wins."""
        with contextlib.suppress(OSError):
            self.given.unlink(missing_ok=True)

    def write_status(self, status: Status) -> None:
        """Replace status.json atomically; a reader sees the old one or the new one, never a half."""
        status.updated = time.time()
        write_private(self.status, json.dumps(asdict(status), indent=1) + "\n")

    def remove_leftovers(self) -> None:
        """Remove what writers that were killed have left half written. Only under the run's lock."""
        for path in self.path.glob(".*.tmp"):
            path.unlink(missing_ok=True)

    def is_held(self) -> bool:
        """Whether a living supervisor holds the lock of this run."""
        try:
            fd = os.open(self.lock, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: readers do not take each other for a supervisor
        except OSError:
            return True
        finally:
            os.close(fd)
        return False

    @contextlib.contextmanager
    def hold(self, patience_s: float = 1.0) -> Iterator[None]:
        """Hold the run's lock. Raises RunError naming the holder when someone else has it.

        A status reader tests the lock for some microseconds, hence the patience.
        """
        fd = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            end = time.monotonic() + patience_s
            while True:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError:
                    if time.monotonic() > end:
                        holder = os.pread(fd, 64, 0).decode(errors="replace").strip() or "another process"
                        raise RunError(f"run {self.name} is already held by supervisor {holder}") from None
                    time.sleep(0.02)
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
            yield
        finally:
            os.close(fd)


def _is_a(value: Any, hint: Any) -> bool:
    if isinstance(value, bool):
        return False
    kinds = get_args(hint) if isinstance(hint, UnionType) else (get_origin(hint) or hint,)
    return isinstance(value, kinds) or (float in kinds and isinstance(value, int))


def require_utf8(path: Path, what: str = "run folder") -> None:
    """Raises RunError for a path whose bytes are no UTF-8: LoRA files and events could not name it."""
    if shown := shown_if_not_utf8(path):
        raise RunError(f"{shown}: the name of this {what} is no valid UTF-8 (rename it)")


def _why_gone(status: Status) -> str:
    booted = status.start_token.partition(":")[0]
    if booted and booted != boot_id():
        return "the machine was restarted while the run went on; continue with `acrf-tui resume`"
    return "the supervisor went without a word (killed, or out of memory); continue with `acrf-tui resume`"


def write_private(path: Path, text: str) -> None:
    """Write `text` beside `path` (mode 0600) and rename it into place."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(fd, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(temporary, path)


def default_runs_dir() -> Path:
    """`./runs`, or what ACRF_RUNS names."""
    return Path(os.environ.get(RUNS_VARIABLE) or "runs").absolute()


def create_run(runs_dir: Path, name: str, config_text: str, total_steps: int = 0) -> RunFolder:
    """A new run folder (0700) with its resolved config. Raises RunError where the name is taken or impossible."""
    if not NAME_PATTERN.fullmatch(name):
        raise RunError(f"run name {name!r}: use letters, digits, '-', '_', '+' and '.', not starting with '.'")
    folder = RunFolder(runs_dir / name)
    require_utf8(folder.path)
    try:
        runs_dir.mkdir(parents=True, exist_ok=True)
        folder.path.mkdir(mode=0o700)
    except FileExistsError:
        if folder.path.exists():
            raise RunError(
                f"run {name!r} exists in {runs_dir} (choose another --name, or `acrf-tui resume {name}`)"
            ) from None
        raise RunError(f"{runs_dir} is not a folder") from None
    except OSError as error:
        raise RunError(f"{folder.path}: cannot be made ({error.strerror})") from None
    folder.path.chmod(0o700)
    write_private(folder.config, config_text)
    folder.write_status(Status(created=time.time(), total_steps=total_steps))
    remember(folder)
    return folder


def fresh_name(runs_dir: Path, stem: str) -> str:
    """A name not yet taken: the stem and the date, then a counter."""
    base = re.sub(r"[^\w+-]+", "-", stem).strip("-_") or "run"
    name = f"{base[:60]}-{time.strftime('%m%d-%H%M', time.localtime(time.time()))}"
    candidate, number = name, 2
    while (runs_dir / candidate).exists():
        candidate, number = f"{name}-{number}", number + 1
    return candidate


def list_runs(runs_dir: Path | None = None, *, elsewhere: bool = True) -> list[RunFolder]:
    """Runs in `runs_dir` and, with `elsewhere`, those that the per-user index remembers; newest first."""
    found: dict[Path, RunFolder] = {}
    for path in [*_folders_in(runs_dir or default_runs_dir()), *(_remembered() if elsewhere else ())]:
        if path not in found and (path / "status.json").is_file():
            found[path] = RunFolder(path)
    return sorted(found.values(), key=lambda run: -_created(run))


def remembered_folders() -> list[Path]:
    """The folders in which the per-user index remembers runs, also those that are not there any more."""
    return list(dict.fromkeys(run.parent for run in _remembered()))


def find_run(name: str | None, runs_dir: Path | None = None, *, elsewhere: bool = True) -> RunFolder:
    """The run of that name or path; None: the newest active run, else the newest. Raises RunError if there is none.

    Without `elsewhere` the run that has no name is one in `runs_dir`.
    """
    if name and (Path(name) / "status.json").is_file():
        return RunFolder(name)
    here = runs_dir or default_runs_dir()
    if name and (here / name / "status.json").is_file():
        return RunFolder(here / name)
    runs = list_runs(here, elsewhere=elsewhere or name is not None)
    if name is None:
        if not runs:
            raise RunError(f"there is no run yet in {here} (start one with `acrf-tui demo`)")
        return next((run for run in runs if run.read_status().active), runs[0])
    matches = [run for run in runs if run.name == name]
    if not matches:
        raise RunError(f"there is no run {name!r} in {here} nor among the runs started elsewhere (see `acrf-tui runs`)")
    return matches[0]


def index_file() -> Path:
    return platformdirs.user_state_path(APP_NAME) / "runs.txt"


def remember(folder: RunFolder) -> None:
    """Add the run to the per-user index. A read-only home costs the index, never the run."""
    path = index_file()
    known = _remembered()
    if folder.path in known:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if len(known) >= MAX_REMEMBERED:
            kept = [run for run in reversed(known) if run.is_dir()][-MAX_REMEMBERED // 2 :]
            write_private(path, "".join(f"{run}\n" for run in kept))
        with path.open("a", encoding="utf-8", errors="surrogateescape") as file:
            file.write(f"{folder.path}\n")
    except OSError:
        return


def _remembered() -> list[Path]:
    try:
        lines = index_file().read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []
    return [Path(line) for line in dict.fromkeys(reversed(lines)) if line]


def _folders_in(runs_dir: Path) -> list[Path]:
    try:
        return [path.absolute() for path in runs_dir.iterdir() if path.is_dir() and not path.name.startswith(".")]
    except OSError:
        return []


def _created(run: RunFolder) -> float:
    try:
        return run.recorded_status().created
    except RunError:
        return 0.0

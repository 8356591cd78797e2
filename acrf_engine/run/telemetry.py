"""The run's memory: SQLite in WAL mode, written by the supervisor alone, read by any number of apps.

Steps have real columns, so that a million of them load as arrays without parsing; the journal keeps whole events.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import math
import sqlite3
import time
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from acrf_engine.protocol import Event, Hardware, Step, WarningEvent, encode, from_wire, to_wire

log = logging.getLogger("acrf.telemetry")

STEP_COLUMNS = (
    "step",
    "time",
    "epoch",
    "loss",
    "loss_char",
    "loss_cos",
    "loss_fft",
    "loss_balanced",
    "lr",
    "grad_norm",
    "step_time_s",
)
_PICTURES = ("sigmas", "anchors", "weights", "losses")
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS steps (
    seq INTEGER PRIMARY KEY, {", ".join(f"{name} REAL" for name in STEP_COLUMNS)},
    total_steps INTEGER, merged INTEGER, pictures TEXT);
CREATE INDEX IF NOT EXISTS steps_by_step ON steps (step);
CREATE TABLE IF NOT EXISTS events (seq INTEGER PRIMARY KEY, time REAL, type TEXT, body TEXT);
CREATE TABLE IF NOT EXISTS hardware (seq INTEGER PRIMARY KEY, time REAL, body TEXT);
CREATE TABLE IF NOT EXISTS reserved (seq INTEGER);
CREATE TABLE IF NOT EXISTS anchors (anchor INTEGER PRIMARY KEY, draws INTEGER, loss_sum REAL, finite INTEGER);
"""
_TABLES = ("steps", "events", "hardware", "reserved", "anchors")
SEQ_BLOCK = 1000
SEQ_AFTER_DAMAGE = 10_000_000
_LAST_SEQ = (
    "SELECT max(s) FROM (SELECT max(seq) s FROM steps UNION ALL SELECT max(seq) FROM events "
    "UNION ALL SELECT max(seq) FROM hardware)"
)
_TRANSIENT = frozenset({"progress", "memory"})


@dataclass
class StepColumns:
    """The steps of a run as columns of float64, one entry per step; NaN where a number was not finite."""

    step: array[float] = field(default_factory=lambda: array("d"))
    time: array[float] = field(default_factory=lambda: array("d"))
    epoch: array[float] = field(default_factory=lambda: array("d"))
    loss: array[float] = field(default_factory=lambda: array("d"))
    loss_char: array[float] = field(default_factory=lambda: array("d"))
    loss_cos: array[float] = field(default_factory=lambda: array("d"))
    loss_fft: array[float] = field(default_factory=lambda: array("d"))
    loss_balanced: array[float] = field(default_factory=lambda: array("d"))
    lr: array[float] = field(default_factory=lambda: array("d"))
    grad_norm: array[float] = field(default_factory=lambda: array("d"))
    step_time_s: array[float] = field(default_factory=lambda: array("d"))


@dataclass(frozen=True)
class History:
    """Everything an app needs to draw a run it never saw: steps, anchors, the journal, the last hardware samples."""

    last_seq: int
    steps: StepColumns
    anchor_draws: list[int]
    anchor_loss: list[float]
    events: list[Event]
    hardware: list[Hardware]
    recent: list[Step]


class TelemetryWriter:
    """The one writer. `record` buffers; `commit` makes durable; journal events commit at once."""

    def __init__(self, path: Path) -> None:
        path.touch(mode=0o600, exist_ok=True)
        rescued = None if _is_sound(path) else _Rescued.from_damaged(path)
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute(f"PRAGMA journal_mode={'WAL' if _supports_wal(path) else 'TRUNCATE'}")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(_SCHEMA)
        self._reserved = self._last = 0
        if rescued is not None:
            rescued.restore(self._db)

    def last_seq(self) -> int:
        """The highest sequence number that may have been given out, also by a supervisor that was killed."""
        stored = int(self._db.execute(_LAST_SEQ).fetchone()[0] or 0)
        row = self._db.execute("SELECT max(seq) FROM reserved").fetchone()
        return max(stored, int(row[0] or 0))

    def _reserve(self, seq: int) -> None:
        # Not every event is stored, and a killed writer loses its last transaction: numbers are taken in blocks.
        if seq > self._reserved:
            self.commit()
            self._set_reserved(seq + SEQ_BLOCK)
            self._reserved = seq + SEQ_BLOCK

    def _set_reserved(self, seq: int) -> None:
        self._db.execute("INSERT OR REPLACE INTO reserved (rowid, seq) VALUES (1, ?)", (seq,))

    def record(self, body: dict[str, Any]) -> None:
        """Store one stamped wire event."""
        kind = body["type"]
        self._reserve(body["seq"])
        self._last = body["seq"]
        if kind in _TRANSIENT:
            return
        if not self._db.in_transaction:
            self._db.execute("BEGIN")
        if kind == "step":
            self._record_step(body)
        elif kind == "pictures":
            self._record_pictures(body)
        elif kind == "hardware":
            self._db.execute("INSERT INTO hardware VALUES (?, ?, ?)", (body["seq"], body["time"], encode(body)))
        else:
            if kind == "plan":
                self._forget_steps_after(body["start_step"])
            self._db.execute("INSERT INTO events VALUES (?, ?, ?, ?)", (body["seq"], body["time"], kind, encode(body)))
            self.commit()

    def _record_step(self, body: dict[str, Any]) -> None:
        pictures = encode({name: body[name] for name in _PICTURES})
        row = [body["seq"], *(body[name] for name in STEP_COLUMNS), body["total_steps"], body["merged"], pictures]
        self._db.execute(f"INSERT INTO steps VALUES ({', '.join('?' * len(row))})", row)
        self._count_anchors(body["anchors"], body["losses"])

    def _record_pictures(self, body: dict[str, Any]) -> None:
        row = self._db.execute("SELECT seq, pictures FROM steps WHERE step = ? ORDER BY seq DESC", (body["step"],))
        found = row.fetchone()
        if found is not None:
            pictures = json.loads(found[1])
            merged = encode({name: pictures[name] + body[name] for name in _PICTURES})
            self._db.execute("UPDATE steps SET pictures = ? WHERE seq = ?", (merged, found[0]))
        self._count_anchors(body["anchors"], body["losses"])

    def _count_anchors(self, anchors: Iterable[int], losses: Iterable[float | None]) -> None:
        self._db.executemany(
            "INSERT INTO anchors VALUES (?, 1, ?, ?) ON CONFLICT (anchor) DO UPDATE SET draws = draws + 1, "
            "loss_sum = loss_sum + excluded.loss_sum, finite = finite + excluded.finite",
            [(anchor, loss or 0.0, int(loss is not None)) for anchor, loss in zip(anchors, losses, strict=True)],
        )

    def _forget_steps_after(self, start_step: int) -> None:
        # A resumed run repeats the steps after its checkpoint: the curve holds each step once, the journal all.
        gone = self._db.execute("DELETE FROM steps WHERE step > ? RETURNING seq", (start_step,)).fetchall()
        if not gone:
            return
        self._db.execute("DELETE FROM anchors")
        for (text,) in self._db.execute("SELECT pictures FROM steps").fetchall():
            pictures = json.loads(text)
            self._count_anchors(pictures["anchors"], pictures["losses"])

    def commit(self) -> None:
        # SQLite itself is asked: on a full disk it may have rolled back already.
        if self._db.in_transaction:
            self._db.execute("COMMIT")

    def close(self) -> None:
        self.commit()
        if self._last:
            self._set_reserved(self._last)
        self._db.close()


class _Rescued:
    """What could still be read of a damaged history, which is set aside as `telemetry.db.damaged`."""

    def __init__(self) -> None:
        self.rows: dict[str, list[tuple[Any, ...]]] = {}
        self.complete = True

    @classmethod
    def from_damaged(cls, path: Path) -> _Rescued:
        rescued = cls()
        for table in _TABLES:
            rows = rescued.rows[table] = []
            try:
                with contextlib.closing(sqlite3.connect(path)) as db:
                    rows += (row for row in db.execute(f"SELECT * FROM {table}") if _is_whole(table, row))
            except sqlite3.DatabaseError:
                rescued.complete = False
        aside = path.with_name(f"{path.name}.damaged")
        path.replace(aside)
        for suffix in ("-wal", "-shm"):  # they belong to the damaged file, and would be applied to the new one
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        log.error("%s is damaged: what could be read of it goes on, the rest is in %s", path, aside.name)
        path.touch(mode=0o600)
        return rescued

    def restore(self, db: sqlite3.Connection) -> None:
        db.execute("BEGIN")
        for table, rows in self.rows.items():
            for row in rows:
                with contextlib.suppress(sqlite3.Error):
                    db.execute(f"INSERT OR IGNORE INTO {table} VALUES ({', '.join('?' * len(row))})", row)
        last = db.execute(_LAST_SEQ).fetchone()[0] or 0
        reserved = max((row[0] for row in self.rows["reserved"]), default=0)
        # Numbers beyond what was read may have been given out, and none may be given twice.
        seq = max(last, reserved) if self.rows["reserved"] else last + SEQ_AFTER_DAMAGE
        steps = db.execute("SELECT count(*) FROM steps").fetchone()[0]
        message = f"the history was damaged: {steps} steps of it could be read; the run itself is not affected"
        now = time.time()
        warning = {**to_wire(WarningEvent(message)), "seq": seq + 1, "time": now}
        db.execute("INSERT INTO events VALUES (?, ?, ?, ?)", (seq + 1, now, "warning", encode(warning)))
        db.execute("COMMIT")


class TelemetryReader:
    """Reads a run's telemetry at any time, also while it is written. An absent file reads as an empty history."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(f"{self.path.as_uri()}?mode=ro", uri=True, timeout=5.0)

    def history(self, hardware_limit: int = 600, recent_limit: int = 64) -> History:
        nothing = History(0, StepColumns(), [], [], [], [], [])
        if not self.path.exists():
            return nothing
        db = self._connect()
        try:
            db.execute("BEGIN")  # one snapshot for all queries
            events = [_event(row[0]) for row in db.execute("SELECT body FROM events ORDER BY seq")]
            columns = self._columns(db)
            draws, losses = self._anchors(db)
            hardware = [
                _event(row[0])
                for row in db.execute("SELECT body FROM hardware ORDER BY seq DESC LIMIT ?", (hardware_limit,))
            ]
            recent = self._steps(db, "ORDER BY seq DESC LIMIT ?", recent_limit)
            last = db.execute(_LAST_SEQ).fetchone()[0]
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):  # the supervisor has just made the file
                return nothing
            raise
        except (sqlite3.DatabaseError, ValueError, TypeError) as error:
            told = WarningEvent(f"the history of this run is damaged ({error}); resuming it repairs what can be")
            return dataclasses.replace(nothing, events=[told])
        finally:
            db.close()
        return History(
            last_seq=last or 0,
            steps=columns,
            anchor_draws=draws,
            anchor_loss=losses,
            events=[event for event in events if event is not None],
            hardware=[event for event in reversed(hardware) if isinstance(event, Hardware)],
            recent=[event for event in map(from_wire, reversed(recent)) if isinstance(event, Step)],
        )

    def last_seq(self) -> int:
        """The highest sequence number on disk; 0 where there is nothing yet."""
        if not self.path.exists():
            return 0
        db = self._connect()
        try:
            return int(db.execute(_LAST_SEQ).fetchone()[0] or 0)
        except sqlite3.DatabaseError:
            return 0
        finally:
            db.close()

    def after(self, seq: int, limit: int = 2000) -> list[dict[str, Any]]:
        """Stored wire events with a sequence number above `seq`, oldest first, at most `limit`."""
        if not self.path.exists():
            return []
        db = self._connect()
        try:
            bodies = self._steps(db, "WHERE seq > ? ORDER BY seq LIMIT ?", seq, limit)
            for table in ("events", "hardware"):
                query = f"SELECT body FROM {table} WHERE seq > ? ORDER BY seq LIMIT ?"
                bodies += [json.loads(row[0]) for row in db.execute(query, (seq, limit))]
        except sqlite3.OperationalError:
            raise
        except (sqlite3.DatabaseError, ValueError, TypeError):  # damaged; the next attempt repairs what can be
            return []
        finally:
            db.close()
        return sorted(bodies, key=lambda body: int(body["seq"]))[:limit]

    @staticmethod
    def _columns(db: sqlite3.Connection) -> StepColumns:
        names = ", ".join(f"ifnull({name}, 9e999)" for name in STEP_COLUMNS)
        columns = [array("d") for _ in STEP_COLUMNS]
        cursor = db.execute(f"SELECT {names} FROM steps ORDER BY step")
        while rows := cursor.fetchmany(20_000):
            for column, values in zip(columns, zip(*rows, strict=True), strict=True):
                column.extend(values)
        for column in columns:
            if math.inf in column:
                column[:] = array("d", (math.nan if value == math.inf else value for value in column))
        return StepColumns(*columns)

    @staticmethod
    def _anchors(db: sqlite3.Connection) -> tuple[list[int], list[float]]:
        rows = db.execute("SELECT anchor, draws, loss_sum, finite FROM anchors").fetchall()
        size = max((row[0] for row in rows), default=-1) + 1
        draws, losses = [0] * size, [math.nan] * size
        for anchor, count, loss_sum, finite in rows:
            draws[anchor] = count
            losses[anchor] = loss_sum / finite if finite else math.nan
        return draws, losses

    @staticmethod
    def _steps(db: sqlite3.Connection, where: str, *parameters: int) -> list[dict[str, Any]]:
        names = ("seq", *STEP_COLUMNS, "total_steps", "merged")
        bodies = []
        for *values, pictures in db.execute(f"SELECT {', '.join(names)}, pictures FROM steps {where}", parameters):
            body: dict[str, Any] = {"type": "step", **dict(zip(names, values, strict=True)), **json.loads(pictures)}
            body["step"] = int(body["step"])
            gaps = [key for key, value in body.items() if value is None or (isinstance(value, list) and None in value)]
            if gaps:
                body["non_finite"] = gaps
            bodies.append(body)
        return bodies


def _is_sound(path: Path) -> bool:
    """Whether SQLite finds the file whole; a file that is busy or new is."""
    try:
        with contextlib.closing(sqlite3.connect(path)) as db:
            return bool(db.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok")
    except sqlite3.OperationalError:
        return True
    except sqlite3.DatabaseError:
        return False


def _is_whole(table: str, row: tuple[Any, ...]) -> bool:
    """Whether a row of a damaged file is one that was written: a torn page reads as empty columns, without an error."""
    try:
        if table in ("steps", "events", "hardware"):
            json.loads(row[-1])
    except (ValueError, TypeError):
        return False
    return row[0] is not None and row[1] is not None if len(row) > 1 else row[0] is not None


def _event(text: str) -> Event | None:
    return from_wire(json.loads(text))


def _supports_wal(path: Path) -> bool:
    """WAL needs shared memory between processes of one machine, which network file systems do not give."""
    try:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return True
    resolved = path.resolve()
    points = [(parts[1], parts[2]) for parts in map(str.split, mounts) if len(parts) > 2]
    inside = [(point, kind) for point, kind in points if resolved.is_relative_to(point)]
    kind = max(inside, key=lambda item: len(item[0]), default=("", ""))[1]
    return not kind.startswith(("nfs", "cifs", "smb", "9p", "fuse.sshfs", "lustre", "ceph"))

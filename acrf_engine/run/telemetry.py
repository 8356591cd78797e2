"""The run's memory: SQLite in WAL mode, written by the supervisor alone, read by any number of apps.

Steps have real columns, which load as arrays without parsing; the journal keeps whole events. The older part of a long
run is also kept in blocks (blocks.py), of which an app draws.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from acrf_engine.protocol import Event, Hardware, Step, WarningEvent
from acrf_engine.run import blocks
from acrf_engine.run.columns import STEP_COLUMNS, StepColumns
from acrf_engine.run.rescue import LAST_SEQ, Rescued, is_sound
from acrf_engine.run.wire import encode, from_wire

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
SEQ_BLOCK = 1000
WHOLE_STEPS = 65_536
"""A run of up to so many steps is given to an app whole, and so is a part of a longer one that it asks for."""
NEWEST_STEPS = 8_192
"""Of a longer one, so many of the newest steps are."""
SAMPLED_STEPS = 16_384
"""So many steps stand for a part that is not yet in blocks."""
BLOCKS_A_COMMIT = 8
"""How many missing blocks are made with one commit, of which there are a few a second."""
_TRANSIENT = frozenset({"progress", "memory"})


@dataclass(frozen=True)
class History:
    """Everything an app needs to draw a run it never saw: steps, anchors, the journal, the last hardware samples.

    `steps` holds every step from step `exact_from` on; before, a long run's are condensed, as blocks.py says.
    """

    last_seq: int
    steps: StepColumns
    anchor_draws: list[int]
    anchor_loss: list[float]
    events: list[Event]
    hardware: list[Hardware]
    recent: list[Step]
    anchor_map: list[blocks.AnchorRow] = field(default_factory=list)
    """Draws and mean loss of the anchors in buckets of steps, oldest first."""
    exact_from: float = 0.0


class TelemetryWriter:
    """The one writer. `record` buffers; `commit` makes durable; journal events commit at once."""

    def __init__(self, path: Path) -> None:
        path.touch(mode=0o600, exist_ok=True)
        rescued = None if is_sound(path) else Rescued.from_damaged(path)
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute(f"PRAGMA journal_mode={'WAL' if _supports_wal(path) else 'TRUNCATE'}")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(_SCHEMA + blocks.SCHEMA)
        self._reserved = self._last = 0
        if rescued is not None:
            rescued.restore(self._db)
        self._missing = blocks.missing(self._db)
        self._open = self._newest_block()

    def last_seq(self) -> int:
        """The highest sequence number that may have been given out, also by a supervisor that was killed."""
        stored = int(self._db.execute(LAST_SEQ).fetchone()[0] or 0)
        row = self._db.execute("SELECT max(seq) FROM reserved").fetchone()
        return max(stored, int(row[0] or 0))

    def _newest_block(self) -> int:
        top = self._db.execute("SELECT max(step) FROM steps").fetchone()[0]
        return blocks.block_of(top or 0)

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
        block = blocks.block_of(body["step"])
        if block > self._open:
            blocks.store(self._db, self._open)  # its last step and all its pictures have come
        elif block < self._open:
            self._missing.append(block)  # a trigger takes it away
        self._open = max(block, self._open)
        self._db.execute(f"INSERT INTO steps VALUES ({', '.join('?' * len(row))})", row)
        self._count_anchors(body["anchors"], body["losses"])

    def _record_pictures(self, body: dict[str, Any]) -> None:
        row = self._db.execute("SELECT seq, pictures FROM steps WHERE step = ? ORDER BY seq DESC", (body["step"],))
        found = row.fetchone()
        if found is not None:
            pictures = json.loads(found[1])
            merged = encode({name: pictures[name] + body[name] for name in _PICTURES})
            self._db.execute("UPDATE steps SET pictures = ? WHERE seq = ?", (merged, found[0]))
            if (block := blocks.block_of(body["step"])) < self._open:
                self._missing.append(block)
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
        self._open = self._newest_block()
        self._missing = [block for block in self._missing if block < self._open]
        self._db.execute("DELETE FROM anchors")
        self._db.executemany("INSERT INTO anchors VALUES (?, ?, ?, ?)", blocks.total_anchors(self._db))

    def commit(self) -> None:
        if self._missing:
            self._mend(BLOCKS_A_COMMIT)
        # SQLite itself is asked: on a full disk it may have rolled back already.
        if self._db.in_transaction:
            self._db.execute("COMMIT")

    def _mend(self, count: int) -> None:
        if not self._db.in_transaction:
            self._db.execute("BEGIN")
        now, self._missing = self._missing[-count:], self._missing[:-count]
        for block in now:
            blocks.store(self._db, block)

    def close(self) -> None:
        self.commit()
        if self._last:
            self._set_reserved(self._last)
        self._db.close()


class TelemetryReader:
    """Reads a run's telemetry at any time, also while it is written. An absent file reads as an empty history."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(f"{self.path.as_uri()}?mode=ro", uri=True, timeout=5.0)

    def history(self, hardware_limit: int = 600, recent_limit: int = 64, *, condensed: bool = False) -> History:
        """All of it; `condensed`: of a long run as much as an app needs to draw it, read in a fraction of a second."""
        nothing = History(0, StepColumns(), [], [], [], [], [])
        if not self.path.exists():
            return nothing
        db = self._connect()
        try:
            db.execute("BEGIN")  # one snapshot for all queries
            events = [_event(row[0]) for row in db.execute("SELECT body FROM events ORDER BY seq")]
            whole = WHOLE_STEPS if condensed else math.inf
            columns, exact_from = blocks.read_long(db, whole, NEWEST_STEPS, SAMPLED_STEPS)
            anchor_map = blocks.read_anchor_map(db) if condensed else []
            draws, losses = self._anchors(db)
            hardware = [
                _event(row[0])
                for row in db.execute("SELECT body FROM hardware ORDER BY seq DESC LIMIT ?", (hardware_limit,))
            ]
            recent = self._steps(db, "ORDER BY seq DESC LIMIT ?", recent_limit)
            last = db.execute(LAST_SEQ).fetchone()[0]
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
            anchor_map=anchor_map,
            exact_from=exact_from,
        )

    def steps(self, first: float, last: float, limit: int = WHOLE_STEPS) -> StepColumns:
        """Every step from `first` to `last`, at most `limit`; none where the history is damaged."""
        if not self.path.exists():
            return StepColumns()
        with contextlib.closing(self._connect()) as db:
            try:
                return blocks.read_steps(db, "WHERE step >= ? AND step <= ? ORDER BY step LIMIT ?", first, last, limit)
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError:
                return StepColumns()

    def journal(self) -> list[Event]:
        """The journal alone, oldest first; empty where it is damaged."""
        if not self.path.exists():
            return []
        with contextlib.closing(self._connect()) as db:
            try:
                found = [_event(row[0]) for row in db.execute("SELECT body FROM events ORDER BY seq")]
            except sqlite3.OperationalError as error:
                if "no such table" in str(error):
                    return []
                raise
            except (sqlite3.DatabaseError, ValueError, TypeError):
                return []
        return [event for event in found if event is not None]

    def last_seq(self) -> int:
        """The highest sequence number on disk; 0 where there is nothing yet."""
        if not self.path.exists():
            return 0
        db = self._connect()
        try:
            return int(db.execute(LAST_SEQ).fetchone()[0] or 0)
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

"""A damaged history: it is set aside, and what can still be read of it goes on."""

from __future__ import annotations

import contextlib
import json
import logging
import sqlite3
import time
from pathlib import Path
from typing import Any

from acrf_engine.protocol import WarningEvent
from acrf_engine.run.wire import encode, to_wire

log = logging.getLogger("acrf.telemetry")

_TABLES = ("steps", "events", "hardware", "reserved", "anchors")
SEQ_AFTER_DAMAGE = 10_000_000
LAST_SEQ = (
    "SELECT max(s) FROM (SELECT max(seq) s FROM steps UNION ALL SELECT max(seq) FROM events "
    "UNION ALL SELECT max(seq) FROM hardware)"
)


class Rescued:
    """What could still be read of a damaged history, which is set aside as `telemetry.db.damaged`."""

    def __init__(self) -> None:
        self.rows: dict[str, list[tuple[Any, ...]]] = {}
        self.complete = True

    @classmethod
    def from_damaged(cls, path: Path) -> Rescued:
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
        last = db.execute(LAST_SEQ).fetchone()[0] or 0
        reserved = max((row[0] for row in self.rows["reserved"]), default=0)
        # Numbers beyond what was read may have been given out, and none may be given twice.
        seq = max(last, reserved) if self.rows["reserved"] else last + SEQ_AFTER_DAMAGE
        steps = db.execute("SELECT count(*) FROM steps").fetchone()[0]
        message = f"the history was damaged: {steps} steps of it could be read; the run itself is not affected"
        now = time.time()
        warning = {**to_wire(WarningEvent(message)), "seq": seq + 1, "time": now}
        db.execute("INSERT INTO events VALUES (?, ?, ?, ?)", (seq + 1, now, "warning", encode(warning)))
        db.execute("COMMIT")


def is_sound(path: Path) -> bool:
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

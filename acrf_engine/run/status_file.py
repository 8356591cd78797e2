"""status.json as a supervisor writes it: a disk that fails, or a run folder that goes away, ends nothing at once."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable

from acrf_engine.run.folder import RunFolder, Status

GONE_PATIENCE_S = 5.0


class StatusFile:
    """The status of the run that lives in `folder` now. `complain` is told what could not be written, and why."""

    def __init__(self, folder: RunFolder, complain: Callable[[str], None]) -> None:
        self._folder = folder
        self._complain = complain
        self._home = os.stat(folder.path).st_ino
        self._gone_since = math.inf

    def write(self, status: Status) -> None:
        try:
            if os.stat(self._folder.path).st_ino != self._home:
                raise FileNotFoundError("the run folder was removed and made anew")  # its status is another run's
            self._folder.write_status(status)
            self._gone_since = math.inf
        except FileNotFoundError as error:
            self._complain(f"the run folder is gone: {error}")
            self._gone_since = min(self._gone_since, time.monotonic())
        except OSError as error:
            self._complain(f"status.json cannot be written: {error}")

    @property
    def lost(self) -> bool:
        """Whether the run folder has been gone for so long that nothing this run learns can be saved any more."""
        return time.monotonic() - self._gone_since > GONE_PATIENCE_S

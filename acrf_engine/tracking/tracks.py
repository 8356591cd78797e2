"""One track of a run in each tracker: how it starts, and how it goes on after a resume or a rollback.

TensorBoard and CSV take steps back, so the repeated ones replace those of before. W&B and trackio cannot: there the
steps that they have are left out until the run is past them.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acrf_engine.logging_config import LoggingConfig, TrackerName
from acrf_engine.run.folder import RunFolder

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

INIT_TIMEOUT_S = 60


@dataclass(frozen=True)
class Track:
    """What a tracker needs to know of the run."""

    run: RunFolder
    settings: LoggingConfig
    anchors: int

    @property
    def name(self) -> str:
        return self.settings.run_name or self.run.name

    def folder(self, tracker: str) -> Path:
        """Where its files go."""
        path = self.run.trackers / tracker
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path


def takes_steps_back(tracker: TrackerName) -> bool:
    """Whether the steps behind a checkpoint can be removed from its track."""
    return tracker in ("tensorboard", "csv")


def open_tracker(tracker: TrackerName, track: Track, after: int) -> GeneralTracker:
    """A started tracker whose track goes on behind step `after`. May raise anything: these are foreign libraries."""
    from accelerate import tracking

    made: GeneralTracker
    match tracker:
        case "csv":
            from acrf_engine.tracking.csv_tracker import CsvTracker

            made = CsvTracker(track.folder("csv"), track.anchors)
            made.cut(after)
        case "tensorboard":
            # Readers drop what is behind the last checkpoint when they come to purge_step.
            made = tracking.TensorBoardTracker(track.name, track.folder("tensorboard"), purge_step=after + 1)
        case "wandb":
            made = tracking.WandBTracker(track.settings.project, **_wandb_arguments(track))
        case "trackio":
            os.environ.setdefault("TRACKIO_DIR", str(track.folder("trackio")))  # read when it is imported
            made = tracking.TrackioTracker(
                track.settings.project,
                name=track.name,
                resume="allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
    made.start()
    return made


def _wandb_arguments(track: Track) -> dict[str, Any]:
    import wandb

    created = track.run.recorded_status().created
    online = track.settings.wandb_mode == "online"
    return {
        "name": track.name,
        # The same at every attempt, so that a resumed run goes on in its own track.
        "id": hashlib.sha256(f"{track.run.path}\n{created}".encode()).hexdigest()[:16],
        "dir": str(track.folder("wandb")),
        "mode": track.settings.wandb_mode,
        "settings": wandb.Settings(console="off", silent=True, init_timeout=INIT_TIMEOUT_S),
        **({"resume": "allow"} if online else {}),
    }

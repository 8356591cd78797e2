"""Trackers of other programs, fed beside the run's own history. Loads no torch."""

from __future__ import annotations

import importlib.util
from typing import Literal, Self

from pydantic import Field, model_validator

from acrf_engine.config_group import Group

TrackerName = Literal["tensorboard", "wandb", "trackio", "csv"]
HOSTED = ("wandb", "trackio")


class LoggingConfig(Group):
    """Trackers of other programs (docs/tracking.md); the app's own charts need none."""

    trackers: list[TrackerName] = Field(default_factory=list, max_length=4)
    """Write the metrics for tensorboard, wandb, trackio or csv, into `trackers/` of the run folder; empty: for none."""
    every: int = Field(1, ge=1, le=100_000)
    """Hand every this many steps to the trackers."""
    project: str = Field("acrf-tui", min_length=1, max_length=100, pattern=r"^[\w. -]+$")
    """Project that the run belongs to in wandb and trackio."""
    run_name: str = Field("", max_length=100, pattern=r"^[\w. +-]*$")
    """The run's name in the trackers; empty: the name that it has here."""
    wandb_mode: Literal["offline", "online"] = "offline"
    """`offline` keeps wandb's files in the run folder (`wandb sync` sends them later), `online` sends them at once."""

    @model_validator(mode="after")
    def _every_setting_has_an_effect(self) -> Self:
        if len(set(self.trackers)) < len(self.trackers):
            raise ValueError(f"trackers: {', '.join(self.trackers)} names one twice (give each once)")
        plain = LoggingConfig.model_fields
        needs = {"every": self.trackers, "run_name": self.trackers, "project": set(HOSTED) & set(self.trackers)}
        needs["wandb_mode"] = {"wandb"} & set(self.trackers)
        for name, users in needs.items():
            if not users and getattr(self, name) != plain[name].default:
                raise ValueError(f"{name} has no effect without a tracker that uses it (set trackers, or remove it)")
        return self

    def missing(self) -> str:
        """What to install before these trackers can be used; empty where all are there. Imports nothing."""
        for name in self.trackers:
            if name != "csv" and importlib.util.find_spec(name) is None:
                return f"{name} is not installed (pip install {name})"
        return ""

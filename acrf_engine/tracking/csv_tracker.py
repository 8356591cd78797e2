"""Metrics as CSV files, one for each group of metrics: accelerate has no such tracker."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

from accelerate.tracking import GeneralTracker

from acrf_engine.tracking.metrics import names


class CsvTracker(GeneralTracker):
    """`train.csv` and `validation.csv` in `folder`: a column `step`, then a column for each metric.

    A metric that a step does not have (an anchor that was not drawn) is an empty cell.
    """

    name = "csv"
    requires_logging_directory = True

    def __init__(self, folder: Path, anchors: int) -> None:
        super().__init__()
        self.folder = folder
        self._columns = {group: ["step", *names(group, anchors)] for group in ("train", "validation")}

    @property
    def tracker(self) -> Path:
        """The folder: there is nothing else to hand out."""
        return self.folder

    def log(self, values: dict[str, Any], step: int | None = None, **_: Any) -> None:
        """Add a row of `values`, all of one group."""
        group = next(iter(values)).partition("/")[0]
        path = self.folder / f"{group}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, self._columns[group])
            if file.tell() == 0:
                writer.writeheader()
            writer.writerow({"step": step, **values})

    def cut(self, after: int) -> None:
        """Remove the rows of steps behind `after`, and what a killed writer left half."""
        for path in self.folder.glob("*.csv"):
            whole = path.read_text(encoding="utf-8")
            lines = whole[: whole.rfind("\n") + 1].splitlines(keepends=True)
            kept = lines[:1] + [line for line in lines[1:] if int(line.partition(",")[0]) <= after]
            beside = path.with_name(f".{path.name}.tmp")
            beside.write_text("".join(kept), encoding="utf-8")
            os.replace(beside, path)

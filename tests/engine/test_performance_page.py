"""docs/performance.md says what was measured, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import table


def test_the_page_is_what_the_results_make_it() -> None:
    assert table.PAGE.read_text(encoding="utf-8") == table.page(list(table.RESULTS.glob("*.json")))


def test_a_figure_over_its_bound_is_marked(tmp_path: Path) -> None:
    rows = [
        table.row("start", "1.5", 1.5, "1.3", ok=False),
        table.row("memory", "9 MB", 9.0, "10 MB", how="At rest."),
        table.row("paint", "0.2 s", 0.2),
    ]
    file = tmp_path / "app-cpu-2-cores.json"
    file.write_text(table.kept(rows), encoding="utf-8")
    lines = table.page([file]).splitlines()
    assert "| start | 1.5 | 1.3 | **no** |" in lines
    assert "| memory | 9 MB | 10 MB | yes |" in lines
    assert "| paint | 0.2 s | (reported) |  |" in lines
    assert "- At rest." in lines
    assert json.loads(file.read_text(encoding="utf-8"))["machine"]["cores"] >= 1

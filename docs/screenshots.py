"""docs/screens/*.svg: the program's own screens of a real run.

python docs/screenshots.py RUN_FOLDER docs/screens
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from textual.pilot import Pilot

from acrf_engine.run.folder import RunFolder
from acrf_tui.app import AcrfApp, AppOptions

SETTLE_S = 2.0
DASHBOARDS = {
    "dashboard": ("acrf-dark", (120, 40)),
    "light": ("acrf-light", (120, 40)),
    "small": ("acrf-dark", (80, 24)),
}


async def shoot(app: AcrfApp, size: tuple[int, int], out: Path, ready: Callable[[AcrfApp], bool]) -> None:
    """Run the app at `size` cells, wait until `ready` and the first paints are over, and write its screen."""
    async with app.run_test(size=size) as pilot:
        await _until(pilot, lambda: ready(app))
        await pilot.pause(SETTLE_S)
        out.write_text(app.export_screenshot(title="acrf-tui"), encoding="utf-8")
        print(out)


async def _until(pilot: Pilot[Any], ready: Callable[[], bool]) -> None:
    for _ in range(200):
        await pilot.pause(0.05)
        if ready():
            return
    raise SystemExit("the screen did not become ready")


async def main(run: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    folder = RunFolder(run)
    for name, (theme, size) in DASHBOARDS.items():
        app = AcrfApp(AppOptions(runs_dir=folder.path.parent, theme=theme), folder)
        await shoot(app, size, out / f"{name}.svg", lambda app: bool(getattr(app.screen, "panels", None)))
    app = AcrfApp(AppOptions(runs_dir=folder.path.parent, theme="acrf-dark"))
    await shoot(app, (120, 40), out / "launchpad.svg", lambda app: app.launchpad is not None)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))

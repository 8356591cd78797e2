"""docs/screens/*.svg: the program's own screens of a real run.

python docs/screenshots.py RUN_FOLDER docs/screens
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from acrf_engine.run.folder import RunFolder
from acrf_tui.app import AcrfApp, AppOptions

SETTLE_S = 2.0
SCREENS: dict[str, tuple[str, tuple[int, int], str, list[str]]] = {
    "dashboard": ("acrf-dark", (120, 40), "run", []),
    "light": ("acrf-light", (120, 40), "run", []),
    "small": ("acrf-dark", (80, 24), "run", []),
    "loss": ("acrf-dark", (120, 40), "run", ["2", "z", "x", "shift+left"]),
    "anchors": ("acrf-dark", (120, 40), "run", ["3", "z"]),
    "launchpad": ("acrf-dark", (120, 40), "launchpad", []),
    "editor": ("acrf-dark", (120, 40), "launchpad", ["down", "e"]),
    "compare": ("acrf-dark", (120, 40), "launchpad", ["tab", "m", "down", "m", "c"]),
}
"""Name -> theme, cells, where it begins, and the keys that lead there."""


async def shoot(app: AcrfApp, size: tuple[int, int], keys: list[str], out: Path) -> None:
    """Run the app at `size` cells, press `keys` once the first screen is drawn, and write what is then shown."""
    async with app.run_test(size=size) as pilot:
        await pilot.pause(SETTLE_S)
        for key in keys:
            await pilot.press(key)
            await pilot.pause(0.3)
        await pilot.pause(SETTLE_S)
        out.write_text(app.export_screenshot(title="acrf-tui"), encoding="utf-8")
        print(out)


async def main(run: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    folder = RunFolder(run)
    for name, (theme, size, start, keys) in SCREENS.items():
        app = AcrfApp(AppOptions(folder.path.parent, theme=theme), folder if start == "run" else None)
        await shoot(app, size, keys, out / f"{name}.svg")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))

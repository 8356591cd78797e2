"""docs/screens/*.svg: the program's own screens, of runs that are trained for them.

python docs/screenshots.py docs/screens

Everything happens in a home of its own, so that no picture shows the places of whoever made it. Takes some minutes.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from textual.pilot import Pilot

from acrf_engine.run.folder import RunFolder
from acrf_tui.app import AcrfApp, AppOptions
from acrf_tui.screens.dashboard import DashboardScreen
from acrf_tui.screens.launchpad import LaunchpadScreen
from acrf_tui.screens.launchpad_lists import ConfigList, RunList
from acrf_tui.shipped import shipped
from acrf_tui.terminal import choose_colors

PATIENCE_S = 300.0
LIVE_FROM_STEP = 260
"""The dashboard is shown while its run trains, from this step on."""
ENDED: dict[str, tuple[str, ...]] = {
    "portrait": (),
    "portrait-lr3e-4": ("learning_rate=3e-4",),
    "portrait-dora": ("lora.use_dora=true", "seed=7"),
}
"""Runs that the launchpad lists and the comparison shows, with what differs from the config."""


@dataclass(frozen=True)
class Shot:
    """A screen: from the dashboard of the live run, or from the launchpad, by keys."""

    size: tuple[int, int] = (120, 40)
    theme: str = "acrf-dark"
    keys: Sequence[str] = ()
    dashboard: bool = True


def typed(down: int, text: str) -> list[str]:
    """Keys that give a field of the editor, so many rows further down, another value."""
    return [*["down"] * down, "enter", *("minus" if key == "-" else key for key in text), "enter"]


SHOTS: dict[str, Shot] = {
    "dashboard": Shot(),
    "light": Shot(theme="acrf-light"),
    "small": Shot(size=(80, 24)),
    "large": Shot(size=(200, 50)),
    "loss": Shot(keys=["2", "z", "x", *["shift+left"] * 3]),
    "anchors": Shot(keys=["3", "z"]),
    "learning-rate": Shot(keys=["l"]),
    "launchpad": Shot(dashboard=False),
    "editor": Shot(dashboard=False, keys=["end", "e", *typed(3, "60"), *typed(4, "2e-4"), *typed(4, "32"), "up"]),
    "compare": Shot(dashboard=False, keys=["tab", "down", "m", "m", "m", "c"]),
}


async def shoot(shot: Shot, live: RunFolder, runs: Path, out: Path) -> None:
    """Run the app, press the keys once the first screen is whole, and write what is then shown."""
    app = AcrfApp(AppOptions(runs, theme=shot.theme), live if shot.dashboard else None)
    async with app.run_test(size=shot.size) as pilot:
        await until(lambda: isinstance(app.screen, DashboardScreen if shot.dashboard else LaunchpadScreen))
        if not shot.dashboard:
            await until(
                lambda: bool(app.screen.query(RunList)) and len(app.screen.query_one(RunList).runs) > len(ENDED)
            )
            await until(lambda: app.screen.query_one(ConfigList).chosen is not None)
            await asyncio.sleep(10.0)  # the check of the chosen config
        await settled(pilot)
        for key in shot.keys:
            await pilot.press(key)
            await settled(pilot)
        out.write_text(app.export_screenshot(title="acrf-tui"), encoding="utf-8")
        print(out)


async def settled(pilot: Pilot[Any]) -> None:
    """A dashboard draws twice a second, the launchpad reads its runs every two."""
    await pilot.pause(1.5)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not true():
            await asyncio.sleep(0.1)


async def main(out: Path) -> None:
    out = out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    choose_colors("truecolor")
    with tempfile.TemporaryDirectory() as home:
        os.environ.update({"HOME": home, **{f"XDG_{kind}_HOME": "" for kind in ("CONFIG", "CACHE", "DATA", "STATE")}})
        here = Path(home) / "lora"
        here.mkdir()
        os.chdir(here)
        face = (shipped("sample_configs") / "face.yaml").read_text(encoding="utf-8")
        Path("portrait.yaml").write_text(face, encoding="utf-8")
        for name, changes in ENDED.items():
            subprocess.run(
                train(Path("portrait.yaml"), name, ["steps=320", *changes]), check=True, stderr=subprocess.DEVNULL
            )
        live = RunFolder(here / "runs" / "woodcut")
        demo = shipped("sample_configs") / "demo.yaml"
        with subprocess.Popen(train(demo, live.name, ["steps=3000"]), stderr=subprocess.DEVNULL) as training:
            await until(lambda: live.status.is_file() and live.read_status().step >= LIVE_FROM_STEP)
            for name, shot in SHOTS.items():
                await shoot(shot, live, here / "runs", out / f"{name}.svg")
            training.send_signal(signal.SIGTERM)


def train(config: Path, name: str, changes: Sequence[str]) -> list[str]:
    sets = [part for change in changes for part in ("--set", change)]
    return [sys.executable, "-P", "-m", "acrf_tui.cli", "train", str(config), "--headless", "--name", name, *sets]


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))

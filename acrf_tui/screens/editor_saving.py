"""Saving from the editor: which file, what stands in the way, and what to ask about it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from acrf_tui.printable import printable, short_path
from acrf_tui.screens.editor_document import Reading, read
from acrf_tui.screens.editor_files import (
    FileTrouble,
    Overtaken,
    Source,
    fresh_path,
    read_again,
    read_source,
    save,
    saving_folders,
)

if TYPE_CHECKING:
    from acrf_tui.screens.editor import EditorScreen


class Saving:
    """Where an editor's text goes. A sample config is copied, never changed."""

    def __init__(self, screen: EditorScreen) -> None:
        self.screen = screen
        self.source = Source()
        self.copy_only = False
        self.saved_path: Path | None = None

    def opened(self, source: Source, *, copy_only: bool) -> None:
        """The file that is edited, as it was read."""
        self.source = source
        self.copy_only = copy_only

    async def save(self, *, elsewhere: bool = False) -> bool:
        """Save the text, asking what must be asked. Whether it is saved."""
        self.screen.changes.end(keep=True)
        reading = await self.screen.live.now()
        if not reading.sound and not await self._save_faulty(reading):
            return False
        target: Path | None = self.screen.path
        expected = self.source.raw
        if elsewhere or self.copy_only:
            target = await self._ask_where()
            expected = read_again(target) if target is not None else None
        while target is not None:
            try:
                source = await asyncio.to_thread(save, target, reading.text, self.source, expected)
            except FileTrouble as error:
                self.screen.notify(str(error), title="Not saved", severity="error", timeout=15, markup=False)
                return False
            except Overtaken:
                match await self._ask_overtaken(target):
                    case "overwrite":
                        expected = read_again(target)
                    case "elsewhere":
                        target = await self._ask_where()
                        expected = read_again(target) if target is not None else None
                    case "reload":
                        await self._reload(target)
                        return False
                    case _:
                        return False
                continue
            self._done(target, source, reading)
            return True
        return False

    def _done(self, target: Path, source: Source, reading: Reading) -> None:
        self.source, self.copy_only, self.saved_path = source, False, target
        self.screen.saved(target, reading)
        self.screen.notify(f"saved {short_path(target)}", markup=False, timeout=4)

    async def _save_faulty(self, reading: Reading) -> bool:
        from acrf_tui.screens.editor_dialogs import FaultyDialog

        lines = [printable(message) for message in reading.messages()]
        shown = [*lines[:4], f"and {len(lines) - 4} more"] if len(lines) > 5 else lines
        return await self.screen.app.push_screen_wait(FaultyDialog(*shown)) == "save"

    async def _ask_where(self) -> Path | None:
        from acrf_tui.screens.editor_dialogs import SaveAsDialog

        path = self.screen.path
        folder = saving_folders()[0][1] if self.copy_only else path.parent
        why = "A sample config stays as it is; this saves your copy." if self.copy_only else "Another name or folder:"
        return await self.screen.app.push_screen_wait(SaveAsDialog(fresh_path(folder, path.stem), why))

    async def _ask_overtaken(self, target: Path) -> str:
        from acrf_tui.screens.editor_dialogs import OvertakenDialog

        gone = "is gone" if read_again(target) is None else "holds something else than when it was read here"
        return await self.screen.app.push_screen_wait(OvertakenDialog(f"{short_path(target)} {gone}."))

    async def _reload(self, target: Path) -> None:
        try:
            source = await asyncio.to_thread(read_source, target)
        except FileTrouble as error:
            self.screen.notify(str(error), severity="error", markup=False)
            return
        self.source = source
        self.screen.live.before = await asyncio.to_thread(read, source.text, self.screen.path.name)
        self.screen.live.change(source.text)

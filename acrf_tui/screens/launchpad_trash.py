"""A screen that deletes: what is deleted goes to the trash, which can be looked at, restored and emptied."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.screen import Screen

from acrf_engine.run.folder import RunError
from acrf_engine.run.trash import TRASH, Trashed, restore, size_of, trash_folders, trashed
from acrf_tui.printable import printable, short_path
from acrf_tui.screens.launchpad_configs import own_config_folder


class TrashingScreen(Screen[None]):
    """Deletes and restores on behalf of its lists."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "z", "restore", "Restore", id="launchpad.restore", show=False, tooltip="Put back what was deleted last"
        ),
        Binding(
            "t", "trash", "Trash", id="launchpad.trash", show=False,
            tooltip="Look at the trash: restore from it, or empty it",
        ),
    ]  # fmt: skip
    runs_dir: Path
    deleted: tuple[Trashed, ...] = ()
    """What was deleted and not restored since the screen is there, oldest first."""

    def look(self) -> None:
        """Something has changed on disk."""
        raise NotImplementedError

    def may_restore(self) -> bool:
        """Whether something can be put back."""
        return bool(self.deleted)

    def delete(self, path: Path, trash: Callable[[], Trashed]) -> None:
        """Ask, then let `trash` move what is at `path` to the trash."""
        self.run_worker(self._delete(path, trash), group="delete", exclusive=True, exit_on_error=False)

    async def _delete(self, path: Path, trash: Callable[[], Trashed]) -> None:
        from acrf_tui.screens.launchpad_trash_dialogs import DeleteDialog

        taken = await asyncio.to_thread(size_of, path)
        if not await self.app.push_screen_wait(DeleteDialog(path, taken)):
            return
        try:
            item = await asyncio.to_thread(trash)
        except RunError as error:
            self.notify(str(error), title="Not deleted", severity="error", markup=False)
            return
        self._set_deleted((*self.deleted, item))
        text = f"{printable(item.name)} is in {short_path(item.path.parent)}; z restores it"
        self.notify(text, title="Deleted", markup=False)
        self.look()

    def action_restore(self) -> None:
        """Put back what was deleted last."""
        if self.deleted:
            self.run_worker(self._restore(self.deleted[-1]), group="restore", exclusive=True, exit_on_error=False)

    async def _restore(self, item: Trashed) -> None:
        self._set_deleted(tuple(one for one in self.deleted if one.path != item.path))
        try:
            path = await asyncio.to_thread(restore, item)
        except RunError as error:
            self.notify(str(error), title="Not restored", severity="error", markup=False)
            return
        self.notify(f"{printable(item.name)} is back in {short_path(path.parent)}", markup=False)
        self.look()

    def action_trash(self) -> None:
        """Show the trash."""
        self.run_worker(self._show_trash(), group="trash", exclusive=True, exit_on_error=False)

    async def _show_trash(self) -> None:
        from acrf_tui.screens.launchpad_trash_dialogs import TrashDialog

        def gather() -> tuple[list[Trashed], list[int]]:
            items = trashed([*trash_folders(self.runs_dir), own_config_folder() / TRASH])
            return items, [size_of(item.path) for item in items]

        item = await self.app.push_screen_wait(TrashDialog(*await asyncio.to_thread(gather)))
        self._set_deleted(tuple(one for one in self.deleted if one.path.exists()))
        if item is not None:
            await self._restore(item)

    def _set_deleted(self, items: tuple[Trashed, ...]) -> None:
        if items != self.deleted:
            self.deleted = items
            self.refresh_bindings()

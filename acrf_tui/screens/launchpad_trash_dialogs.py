"""What the launchpad asks before it deletes, and the list of what lies in the trash."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from rich.cells import cell_len
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, OptionList, Static
from textual.widgets.option_list import Option

from acrf_engine.run.trash import TRASH, Trashed, empty
from acrf_tui.charts.lines import fit
from acrf_tui.panels.numbers import age
from acrf_tui.printable import printable, short_path
from acrf_tui.screens.launchpad_check import size
from acrf_tui.screens.launchpad_lists import PickList


class DeleteDialog(ModalScreen[bool]):
    """Asks before something goes to the trash."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,n", "answer(False)", "Keep", id="dialog.cancel", tooltip="Close without deleting"),
        Binding("y", "answer(True)", "Delete", id="delete.yes", tooltip="Put it into the trash"),
        Binding("right,down", "app.focus_next", show=False),
        Binding("left,up", "app.focus_previous", show=False),
    ]

    def __init__(self, path: Path, taken: int) -> None:
        super().__init__()
        self.path, self.taken = path, taken

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as box:
            box.border_title = Content(f"Delete {printable(self.path.name)}?")
            yield Static(
                f"It goes to {short_path(self.path.parent / TRASH)} and still takes its {size(self.taken)} there: "
                "z restores it, t shows the trash and empties it.",
                markup=False,
            )
            with Horizontal(classes="dialog-buttons"):
                yield Button("[b]y[/b]  Delete", id="delete-yes", variant="primary")
                yield Button("[b]n[/b]  Keep", id="delete-no")

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """The button's answer."""
        self.dismiss(event.button.id == "delete-yes")

    def action_answer(self, answer: bool) -> None:
        """Close with an answer."""
        self.dismiss(answer)


class TrashDialog(ModalScreen[Trashed | None]):
    """Lists what is in the trash, newest first; answers with what is to be restored."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,t,q", "close", "Close", id="dialog.cancel", tooltip="Close the trash"),
        Binding("e", "empty", "Empty", id="trash.empty", tooltip="Delete all of this for good"),
    ]

    def __init__(self, items: Sequence[Trashed], sizes: Sequence[int]) -> None:
        super().__init__()
        self.items, self.sizes = list(items), list(sizes)
        self._sure = False
        self._busy = False

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog dialog-wide") as box:
            box.border_title = "Trash"
            if self.items:
                box.border_subtitle = "enter restores · e empties the trash · esc closes"
                yield PickList(*(Option(row) for row in self._rows()), id="trash", compact=True)
            else:
                box.border_subtitle = "esc closes"
            yield Static(self._total(), id="trash-says", markup=False)

    def _rows(self) -> list[Content]:
        now = time.time()
        names = [fit(printable(item.name), 36) for item in self.items]
        width = max(map(cell_len, names))
        rows = []
        for item, name, taken in zip(self.items, names, self.sizes, strict=True):
            gap = " " * (width - cell_len(name))
            ago = age(max(0.0, now - item.when))
            where = fit(short_path(item.origin.parent), max(8, 70 - width - 22))
            rows.append(Content.assemble(f"{name}{gap}  {ago:>6}  {size(taken):>9}", (f"  {where}", "dim")))
        return rows

    def _total(self) -> str:
        if not self.items:
            return "The trash is empty. x puts the chosen run, or a config of your own, here."
        return f"{len(self.items)} here, {size(sum(self.sizes))} in all"

    def on_option_list_option_selected(self, message: OptionList.OptionSelected) -> None:
        """Restore the chosen one."""
        message.stop()
        if not self._busy:
            self.dismiss(self.items[message.option_index])

    def action_empty(self) -> None:
        """Delete all of it for good; asks once."""
        says = self.query_one("#trash-says", Static)
        if not self.items or self._busy:
            return
        if not self._sure:
            self._sure = True
            says.add_class("-wrong")
            says.update(f"Press e again to delete {len(self.items)} for good and free {size(sum(self.sizes))}.")
            return
        self._busy = True
        says.update("deleting …")
        self.run_worker(self._empty(), exit_on_error=False)

    async def _empty(self) -> None:
        failed = await asyncio.to_thread(empty, self.items)
        if failed:
            self.notify("\n".join(failed[:5]), title="Not all could be deleted", severity="error", markup=False)
        else:
            self.notify(f"{size(sum(self.sizes))} are free again", title="The trash is empty")
        self.dismiss(None)

    def action_close(self) -> None:
        """Close the trash."""
        if not self._busy:
            self.dismiss(None)

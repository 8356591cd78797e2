"""What the editor asks: leave with changes, take up a draft, save what is wrong or was overtaken, and where to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Static

from acrf_tui.printable import printable, short_path
from acrf_tui.screens.editor_files import found_by_launchpad, is_shipped, saving_folders
from acrf_tui.screens.new_run_fields import PathInput


def answer_binding(key: str, answer: str, description: str, id: str, tooltip: str) -> Binding:
    """A key that gives an answer."""
    return Binding(key, f"answer('{answer}')", description, id=f"editor-{id}", tooltip=tooltip)


STEPS: list[BindingType] = [
    Binding("down,right", "app.focus_next", show=False),
    Binding("up,left", "app.focus_previous", show=False),
]


class QuestionDialog(ModalScreen[str]):
    """A question with its answers as buttons; dismissed with the answer, "" for none."""

    TITLE_OF_BOX: ClassVar[str] = ""
    ANSWERS: ClassVar[tuple[tuple[str, str, str], ...]] = ()
    """Key, answer, and what the button says."""

    def __init__(self, *lines: str) -> None:
        super().__init__()
        self.lines = lines

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog dialog-wide editor-question") as box:
            box.border_title = self.TITLE_OF_BOX
            yield Static("\n".join(self.lines), classes="dialog-hint", markup=False)
            for index, (key, answer, says) in enumerate(self.ANSWERS):
                label = Content.assemble((key, "bold"), f"  {says}")
                yield Button(label, id=f"answer-{answer or 'none'}", variant="default" if index else "primary")

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """The button's answer."""
        event.stop()
        self.action_answer((event.button.id or "").removeprefix("answer-").replace("none", ""))

    def action_answer(self, answer: str) -> None:
        """Close with an answer."""
        self.dismiss(answer)


class UnsavedDialog(QuestionDialog):
    """Leaving with changes: save, discard, or "" to stay."""

    TITLE_OF_BOX = "Not saved"
    ANSWERS = (("s", "save", "Save, then leave"), ("d", "discard", "Leave without the changes"), ("c", "", "Stay"))
    BINDINGS: ClassVar[list[BindingType]] = [
        answer_binding("s", "save", "Save", "unsaved.save", "Save, then leave"),
        answer_binding("d", "discard", "Discard", "unsaved.discard", "Leave without the changes"),
        answer_binding("escape,c", "", "Stay", "unsaved.stay", "Go on with the changes"),
        *STEPS,
    ]


class DraftDialog(QuestionDialog):
    """A draft was found: take, discard, or "" to look at the file and keep the draft."""

    TITLE_OF_BOX = "Changes from last time"
    ANSWERS = (("t", "take", "Take them up"), ("d", "discard", "Discard them; the file as it is"))
    BINDINGS: ClassVar[list[BindingType]] = [
        answer_binding("t,escape", "take", "Take up", "draft.take", "Go on with what was typed"),
        answer_binding("d", "discard", "Discard", "draft.discard", "The file as it is"),
        *STEPS,
    ]


class FaultyDialog(QuestionDialog):
    """Saving what would not run: save, or "" to go back."""

    TITLE_OF_BOX = "This config would not run"
    ANSWERS = (("c", "", "Go back and mend it"), ("s", "save", "Save it all the same"))
    BINDINGS: ClassVar[list[BindingType]] = [
        answer_binding("s", "save", "Save", "faulty.save", "Save it as it stands"),
        answer_binding("escape,c", "", "Go back", "faulty.back", "Do not save yet"),
        *STEPS,
    ]


class OvertakenDialog(QuestionDialog):
    """The file was changed by somebody else: elsewhere, overwrite, reload, or "" for nothing."""

    TITLE_OF_BOX = "The file was changed meanwhile"
    ANSWERS = (
        ("a", "elsewhere", "Save as another file"),
        ("o", "overwrite", "Overwrite it with what is here"),
        ("r", "reload", "Show the file; ctrl+z brings back what is here"),
        ("c", "", "Do nothing yet"),
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        answer_binding("a", "elsewhere", "Save as", "overtaken.elsewhere", "Save as another file"),
        answer_binding("o", "overwrite", "Overwrite", "overtaken.overwrite", "Replace the file"),
        answer_binding("r", "reload", "Reload", "overtaken.reload", "Show the file as it is now"),
        answer_binding("escape,c", "", "Cancel", "overtaken.cancel", "Do nothing yet"),
        *STEPS,
    ]


class SaveAsDialog(ModalScreen[Path | None]):
    """Asks for a file; another file is replaced only after that was said and confirmed."""

    AUTO_FOCUS = "PathInput"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "Cancel", id="editor-save-as.cancel", tooltip="Do not save"),
        Binding("f2,ctrl+s", "save", "Save", id="editor-save-as.save", tooltip="Save under this name"),
    ]

    def __init__(self, suggestion: Path, why: str) -> None:
        super().__init__()
        self.suggestion = suggestion
        self.why = why
        self.folders = saving_folders()
        self._confirmed = ""

    def compose(self) -> ComposeResult:
        with Vertical(id="save-as", classes="dialog dialog-wide") as box:
            box.border_title = "Save as"
            yield Static(self.why, classes="dialog-hint", markup=False)
            yield PathInput(str(self.suggestion), id="save-as-path")
            yield Static("", id="save-as-says", markup=False)
            with Horizontal(classes="dialog-buttons"):
                yield Button("Save", id="save-as-save", variant="primary")
                for index, (name, folder) in enumerate(self.folders):
                    yield Button(name.capitalize(), id=f"folder-{index}", tooltip=short_path(folder))
                yield Button("Cancel", id="save-as-cancel")

    def on_mount(self) -> None:
        self._judge()

    @property
    def chosen(self) -> Path | None:
        """The file that was typed."""
        text = self.query_one(PathInput).value.strip()
        if not text or text.endswith("/"):
            return None
        path = Path(os.path.abspath(os.path.expanduser(text)))
        return path.with_name(f"{path.name}.yaml") if path.suffix not in (".yaml", ".yml") else path

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        self._judge()

    def _judge(self) -> bool:
        path = self.chosen
        says, wrong = "", True
        if path is None:
            says = "a file name, such as mine.yaml"
        elif path.is_dir():
            says = "this is a folder: add a name"
        elif is_shipped(path):
            says = "the sample configs stay as they are: choose another folder"
        elif os.path.lexists(path):
            again = str(path) == self._confirmed
            says = "save again to replace this file" if again else "this file exists; saving replaces it"
        else:
            wrong = False
            says = "a new file"
            if not found_by_launchpad(path):
                places = " or ".join(short_path(folder) for _, folder in self.folders)
                says = f"a new file; the launchpad lists only .yaml files of {places}"
        field = self.query_one("#save-as-says", Static)
        field.update(printable(says))
        field.set_class(wrong, "-wrong")
        return path is not None and not path.is_dir() and not is_shipped(path)

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.action_save()

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        event.stop()
        name = event.button.id or ""
        if name.startswith("folder-"):
            field = self.query_one(PathInput)
            folder = self.folders[int(name.removeprefix("folder-"))][1]
            field.value = str(folder / (Path(field.value).name or self.suggestion.name))
            field.focus()
        elif name == "save-as-save":
            self.action_save()
        else:
            self.action_cancel()

    def action_save(self) -> None:
        """Save there; over another file only when asked for twice."""
        path = self.chosen
        if not self._judge() or path is None:
            self.app.bell()
        elif os.path.lexists(path) and str(path) != self._confirmed:
            self._confirmed = str(path)
            self._judge()
        else:
            self.dismiss(path)

    def action_cancel(self) -> None:
        """Do not save."""
        self.dismiss(None)

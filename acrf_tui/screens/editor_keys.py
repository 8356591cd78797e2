"""The keys of the config editor: one table, which help, palette and the keys line read."""

from __future__ import annotations

from textual.binding import Binding, BindingType

BINDINGS: list[BindingType] = [
    Binding("f2", "save", "Save", id="editor.save", tooltip="Save the YAML to its file"),
    Binding("ctrl+s", "save", "Save", id="editor.save-too", tooltip="Save the YAML to its file", show=False),
    Binding("f4", "other_side", "Form/YAML", id="editor.other-side", tooltip="Go between the form and the YAML"),
    Binding("escape", "leave", "Leave", id="editor.leave", tooltip="Drop the filter, then leave the editor"),
    Binding("q", "leave", "Leave", id="editor.leave-too", tooltip="Leave the editor", show=False),
    Binding("f1", "help", "Help", id="editor.help", tooltip="Show the keys that work now"),
    Binding("question_mark", "help", "Help", id="app.help", tooltip="Show the keys that work now", show=False),
    Binding("f3", "next_problem", "Problem", id="editor.next-problem", tooltip="Go to what is wrong next"),
    Binding("f5", "save_as", "Save as", id="editor.save-as", tooltip="Save to another file"),
    Binding("ctrl+z", "undo", "Undo", id="editor.undo", tooltip="Take back the last change", show=False),
    Binding("ctrl+y", "redo", "Redo", id="editor.redo", tooltip="Make it again", show=False),
]

"""The config editor as a user meets it: form and YAML are one, and nothing typed is lost."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from textual import events
from textual.app import App
from textual.binding import Binding
from textual.pilot import Pilot
from textual.widgets import Input, OptionList, TextArea

from acrf_engine.config import load_config
from acrf_tui.app import AcrfApp, AppOptions
from acrf_tui.charts.lines import LineView
from acrf_tui.screens.dialogs import HelpDialog
from acrf_tui.screens.editor import EditorScreen
from acrf_tui.screens.editor_dialogs import DraftDialog, FaultyDialog, OvertakenDialog, SaveAsDialog, UnsavedDialog
from acrf_tui.screens.editor_files import draft_file
from acrf_tui.screens.editor_inline import InlineEditor
from acrf_tui.screens.editor_list import FieldList
from acrf_tui.screens.launchpad import LaunchpadScreen
from acrf_tui.screens.launchpad_configs import own_config_folder, own_configs
from acrf_tui.screens.launchpad_lists import ConfigList
from acrf_tui.shipped import shipped
from tests.tui.waiting import until

DEMO = shipped("sample_configs") / "demo.yaml"
MINE = """# mine
epochs: 40   # enough
learning_rate: 1e-4
loss:
  # of the three
  lambda_cos: 0.2
"""


@pytest.fixture(autouse=True)
def home(here: Path, unexamined: None) -> Path:
    return here


@pytest.fixture
def mine(home: Path) -> Path:
    path = home / "mine.yaml"
    path.write_text(MINE, encoding="utf-8")
    return path


class Editing:
    """An editor in an app, and what it was dismissed with."""

    def __init__(self, app: App[int], screen: EditorScreen, pilot: Pilot[int]) -> None:
        self.app, self.screen, self.pilot = app, screen, pilot
        self.left: list[Path | None] = []

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)

    async def type(self, text: str) -> None:
        await self.pilot.press(*(("space" if char == " " else char) for char in text))

    async def choose(self, key: str) -> None:
        """Choose a field and open what changes it."""
        assert self.screen.fields.go_to_field(tuple(key.split(".")))
        self.screen.fields.action_choose()
        await self.pilot.pause()

    async def read(self) -> None:
        """Until the text that is shown has been read."""
        await until(lambda: self.screen.live.reading.text == self.screen.live.text)
        await self.pilot.pause()

    def row(self, key: str) -> str:
        """The row of a field."""
        fields = self.screen.fields
        at = next(i for i, row in enumerate(fields.rows) if row.field is not None and row.field.dotted == key)
        return "".join(text for text, _ in fields._lines[at])

    def says(self, place: str) -> str:
        """The text of a line view."""
        return "\n".join("".join(text for text, _ in line) for line in self.screen.query_one(place, LineView).lines)

    async def until_asked(self, dialog: type) -> None:
        await until(lambda: isinstance(self.app.screen, dialog))
        await self.pilot.pause()


@asynccontextmanager
async def editing(path: Path, *, base: Path | None = None, size: tuple[int, int] = (120, 40)) -> AsyncIterator[Editing]:
    app = AcrfApp(AppOptions(Path("runs")))
    async with app.run_test(size=size) as pilot:
        await until(lambda: isinstance(app.screen, LaunchpadScreen))
        screen = EditorScreen(path, base=base)
        found = Editing(app, screen, pilot)
        app.push_screen(screen, found.left.append)
        await until(lambda: screen.live.loaded and bool(screen.fields.rows))
        await pilot.pause()
        yield found


async def test_what_is_typed_in_the_form_is_in_the_yaml_at_once_and_in_the_file_when_saved(mine: Path) -> None:
    async with editing(mine) as editor:
        await editor.choose("epochs")
        await editor.type("60")
        assert editor.screen.yaml.text == MINE.replace("epochs: 40   # enough", "epochs: 60   # enough")
        await editor.press("enter")
        await editor.read()
        assert editor.row("epochs").split() == ["●", "epochs", "60", "10"]
        assert "1 changed" in editor.says("#editor-head")
        assert "in the file 40" in editor.says("#form-detail")
        assert mine.read_text() == MINE
        await editor.press("f2")
        await until(lambda: mine.read_text() != MINE)
        await until(lambda: not editor.screen.live.dirty)
        assert editor.row("epochs").split() == ["◦", "epochs", "60", "10"]
        await editor.press("escape")
        await until(lambda: editor.left == [mine])
    assert load_config(mine).epochs == 60
    assert "# of the three" in mine.read_text()


async def test_keys_typed_before_the_field_is_open_are_not_lost(mine: Path) -> None:
    async with editing(mine) as editor:
        editor.screen.fields.go_to_field(("trigger",))
        for key in ("enter", "d", "u", "q"):
            editor.app.post_message(events.Key(key, key if len(key) == 1 else None))
        await until(lambda: load(editor).get("trigger") == "duq")


def load(editor: Editing) -> dict[str, object]:
    return editor.screen.live.reading.values


async def test_a_wrong_value_is_said_in_the_words_of_the_program_and_stays_to_be_mended(mine: Path) -> None:
    async with editing(mine) as editor:
        await editor.choose("epochs")
        await editor.type("many")
        await editor.press("enter")
        await editor.read()
        assert editor.says("#editor-problems") == "✗ mine.yaml:2: epochs: expected a whole number, got 'many'"
        assert "✗ 1 problem" in editor.says("#editor-head")
        assert editor.row("epochs").startswith("✗")
        assert "expected a whole number, got 'many'" in editor.says("#form-detail")
        await editor.press("f2")
        await editor.until_asked(FaultyDialog)
        await editor.press("escape")
        await until(lambda: editor.app.screen is editor.screen)
        assert mine.read_text() == MINE
        await editor.press("home", "f3")
        await editor.pilot.pause()
        assert editor.screen.fields.row is not None
        assert editor.screen.fields.row.key == ("epochs",)
        await editor.press("f2")
        await editor.until_asked(FaultyDialog)
        await editor.press("s")
        await until(lambda: "epochs: many" in mine.read_text())


async def test_typing_in_the_yaml_changes_the_form(mine: Path) -> None:
    async with editing(mine) as editor:
        await editor.press("f4")
        assert editor.screen.focused is editor.screen.yaml
        editor.screen.yaml.move_cursor((2, 0))
        await editor.type("seed: 7")
        await editor.press("enter")
        await editor.read()
        assert editor.row("seed").split() == ["●", "seed", "7", "0"]
        await editor.press("f4")
        assert editor.screen.focused is editor.screen.fields


async def test_yaml_that_cannot_be_read_is_kept_and_the_form_waits(mine: Path) -> None:
    async with editing(mine) as editor:
        await editor.press("f4")
        editor.screen.yaml.move_cursor((2, 0))
        await editor.type("seed: [1")
        await editor.press("enter")
        await until(lambda: bool(editor.screen.live.reading.error))
        await editor.pilot.pause()
        assert "not valid YAML" in editor.says("#editor-problems")
        assert "40" in editor.row("epochs")
        await editor.press("f4")
        await editor.choose("epochs")
        assert not editor.screen.query(InlineEditor)
        assert "seed: [1\n" in editor.screen.yaml.text
        await editor.press("f3")
        assert editor.screen.focused is editor.screen.yaml


async def test_a_choice_a_switch_a_list_and_another_value(mine: Path) -> None:
    async with editing(mine) as editor:
        await editor.choose("scheduler")
        await until(lambda: isinstance(editor.screen.focused, OptionList))
        await editor.press("down", "enter")
        await until(lambda: load(editor).get("scheduler") == "cosine")
        await editor.choose("data.flip")
        await until(lambda: load(editor).get("data") == {"flip": True})
        await editor.choose("data.flip")
        await until(lambda: load(editor).get("data") == {"flip": False})
        await editor.choose("preview.prompts")
        await until(lambda: isinstance(editor.screen.focused, TextArea))
        await editor.type("a star")
        await editor.press("enter")
        await editor.type("a: ring")
        await editor.press("tab")
        await until(lambda: load(editor).get("preview") == {"prompts": ["a star", "a: ring"]})
        await editor.choose("resolution")
        await until(lambda: isinstance(editor.screen.focused, OptionList))
        await editor.press("down", "enter")
        await until(lambda: isinstance(editor.screen.focused, Input))
        await editor.type("512")
        await editor.press("enter")
        await until(lambda: load(editor).get("resolution") == 512)
        assert "# of the three" in editor.screen.yaml.text


async def test_a_folder_is_completed(mine: Path, home: Path) -> None:
    (home / "my photos").mkdir()
    async with editing(mine) as editor:
        await editor.choose("dataset")
        await until(lambda: isinstance(editor.screen.focused, Input))
        await editor.press("ctrl+u", "m", "tab")
        await until(lambda: load(editor).get("dataset") == "my photos/")


async def test_what_a_line_does_not_hold_is_edited_in_the_yaml(home: Path) -> None:
    path = home / "two.yaml"
    path.write_text("epochs: 2\ndataset:\n  - path: a\n  - path: b\n")
    async with editing(path) as editor:
        assert "2 in the YAML" in editor.row("dataset")
        await editor.choose("dataset")
        await until(lambda: editor.screen.focused is editor.screen.yaml)
        assert editor.screen.yaml.cursor_location[0] == 1


async def test_escape_puts_a_field_back_and_undo_takes_back_what_was_kept(mine: Path) -> None:
    async with editing(mine) as editor:
        await editor.choose("epochs")
        await editor.type("77")
        await editor.press("escape")
        await editor.read()
        assert editor.screen.yaml.text == MINE
        assert not editor.screen.live.dirty
        await editor.choose("epochs")
        await editor.type("77")
        await editor.press("enter")
        await editor.read()
        await editor.press("ctrl+z")
        await editor.read()
        assert editor.screen.yaml.text == MINE


async def test_a_field_goes_back_to_its_default_or_to_the_file(mine: Path) -> None:
    async with editing(mine) as editor:
        editor.screen.fields.go_to_field(("epochs",))
        await editor.press("d")
        await editor.read()
        assert editor.screen.yaml.text == MINE.replace("epochs: 40", "epochs: 10")
        await editor.press("u")
        await editor.read()
        assert editor.screen.yaml.text == MINE


async def test_the_filter_shows_what_holds_the_words_and_escape_drops_it(mine: Path) -> None:
    async with editing(mine) as editor:
        every = len(editor.screen.fields.rows)
        await editor.press("slash")
        await editor.type("learning rate")
        await editor.pilot.pause()
        names = [row.field.dotted for row in editor.screen.fields.rows if row.field is not None]
        assert "learning_rate" in names
        assert "turbo_steps" not in names
        await editor.press("enter")
        assert editor.screen.focused is editor.screen.fields
        await editor.press("escape")
        await until(lambda: len(editor.screen.fields.rows) == every)
        assert editor.app.screen is editor.screen


async def test_leaving_with_changes_asks(mine: Path) -> None:
    async with editing(mine) as editor:
        await editor.choose("epochs")
        await editor.type("60")
        await editor.press("enter", "escape")
        await editor.until_asked(UnsavedDialog)
        await editor.press("escape")
        await until(lambda: editor.app.screen is editor.screen)
        await editor.press("q")
        await editor.until_asked(UnsavedDialog)
        await editor.press("s")
        await until(lambda: editor.left == [mine])
    assert load_config(mine).epochs == 60


async def test_changes_can_be_left_behind(mine: Path) -> None:
    async with editing(mine) as editor:
        await editor.choose("epochs")
        await editor.type("60")
        await editor.press("enter", "escape")
        await editor.until_asked(UnsavedDialog)
        await editor.press("d")
        await until(lambda: editor.left == [None])
    assert mine.read_text() == MINE
    assert not draft_file(mine).exists()


async def test_a_sample_is_copied_to_where_the_launchpad_finds_it(home: Path) -> None:
    before = DEMO.read_bytes()
    async with editing(DEMO) as editor:
        assert "saves a copy" in editor.says("#editor-head")
        await editor.choose("epochs")
        await editor.type("3")
        await editor.press("enter", "f2")
        await editor.until_asked(SaveAsDialog)
        await editor.press("enter")
        await until(lambda: editor.app.screen is editor.screen)
        await until(lambda: not editor.screen.live.dirty)
        await editor.press("escape")
        await until(lambda: editor.left == [own_config_folder() / "demo.yaml"])
    assert DEMO.read_bytes() == before
    assert [entry.name for entry in own_configs(home)] == ["demo"]
    saved = own_config_folder() / "demo.yaml"
    assert load_config(saved).epochs == 3
    assert saved.read_text() == DEMO.read_text().replace("epochs: 150 ", "epochs: 3   ")


async def test_another_file_is_replaced_only_when_that_was_said(mine: Path, home: Path) -> None:
    other = home / "other.yaml"
    other.write_text("epochs: 1\n")
    async with editing(mine) as editor:
        await editor.press("f5")
        await editor.until_asked(SaveAsDialog)
        editor.app.screen.query_one(Input).value = str(other)
        await editor.press("enter")
        assert isinstance(editor.app.screen, SaveAsDialog)
        assert other.read_text() == "epochs: 1\n"
        await editor.press("enter")
        await until(lambda: other.read_text() == MINE)


@pytest.mark.parametrize("answer", ["o", "r", "escape"])
async def test_a_file_that_was_changed_meanwhile_is_asked_about(mine: Path, answer: str) -> None:
    theirs = "epochs: 5  # theirs\n"
    async with editing(mine) as editor:
        await editor.choose("epochs")
        await editor.type("60")
        await editor.press("enter")
        ours = editor.screen.yaml.text
        mine.write_text(theirs)
        await editor.press("f2")
        await editor.until_asked(OvertakenDialog)
        assert mine.read_text() == theirs
        await editor.press(answer)
        await until(lambda: editor.app.screen is editor.screen)
        if answer == "o":
            await until(lambda: mine.read_text() == ours)
        elif answer == "r":
            await until(lambda: editor.screen.yaml.text == theirs)
            await editor.read()
            assert not editor.screen.live.dirty
            await editor.press("ctrl+z")
            await until(lambda: editor.screen.yaml.text == ours)
        else:
            assert editor.screen.yaml.text == ours
        assert answer == "o" or mine.read_text() == theirs


@pytest.mark.parametrize("take", [True, False])
async def test_what_was_typed_when_the_app_died_is_offered(mine: Path, take: bool) -> None:
    async with editing(mine) as editor:
        await editor.choose("epochs")
        await editor.type("60")
        await until(draft_file(mine).exists)
    async with editing(mine) as editor:
        await editor.until_asked(DraftDialog)
        assert mine.read_text() == MINE
        await editor.press("t" if take else "d")
        await until(lambda: editor.app.screen is editor.screen)
        await editor.read()
        assert ("epochs: 60" in editor.screen.yaml.text) == take
        assert draft_file(mine).exists() == take
        if not take:
            await editor.choose("epochs")
            await editor.type("61")
            await until(draft_file(mine).exists)


async def test_what_was_saved_leaves_no_draft(mine: Path) -> None:
    async with editing(mine) as editor:
        await editor.choose("epochs")
        await editor.type("60")
        await until(draft_file(mine).exists)
        await editor.press("enter", "ctrl+s")
        await until(lambda: "60" in mine.read_text())
        await until(lambda: not draft_file(mine).exists())


async def test_a_place_that_takes_nothing_keeps_the_text(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from acrf_tui.screens import editor_files

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    async with editing(mine) as editor:
        await editor.choose("epochs")
        await editor.type("60")
        await editor.press("enter")
        monkeypatch.setattr(editor_files.os, "fsync", full)
        await editor.press("f2")
        said = "there is no space left"
        await until(lambda: any(said in note.message for note in editor.app._notifications))
        assert editor.screen.live.dirty
        assert mine.read_text() == MINE


async def test_a_file_that_cannot_be_edited_is_said(home: Path) -> None:
    path = home / "bad.yaml"
    path.write_bytes(b"epochs: \xff\n")
    app = AcrfApp(AppOptions(Path("runs")))
    async with app.run_test():
        await until(lambda: isinstance(app.screen, LaunchpadScreen))
        left: list[Path | None] = []
        app.push_screen(EditorScreen(path), left.append)
        await until(lambda: left == [None])
        await until(lambda: any("not UTF-8" in note.message for note in app._notifications))


async def test_a_new_file_begins_as_a_copy(mine: Path, home: Path) -> None:
    async with editing(home / "new.yaml", base=mine) as editor:
        assert editor.screen.yaml.text == MINE
        await editor.press("f2")
        await until((home / "new.yaml").exists)
    assert (home / "new.yaml").read_text() == MINE


async def test_a_layout_that_the_form_cannot_change_is_left_as_it_was_and_said(home: Path) -> None:
    path = home / "odd.yaml"
    path.write_text("# nothing yet\n---\n...\n")
    async with editing(path) as editor:
        await editor.choose("epochs")
        await editor.type("5")
        said = "cannot be changed from the form"
        await until(lambda: any(said in note.message for note in editor.app._notifications))
        assert editor.screen.yaml.text == path.read_text()
        await until(lambda: not editor.screen.query(InlineEditor))


async def test_the_launchpad_opens_the_editor(mine: Path) -> None:
    app = AcrfApp(AppOptions(Path("runs")))
    async with app.run_test(size=(120, 40)) as pilot:
        await until(lambda: isinstance(app.screen, LaunchpadScreen) and bool(app.screen.query(ConfigList)))
        await until(lambda: app.screen.query_one(ConfigList).chosen is not None)
        await pilot.press("e")
        await until(lambda: isinstance(app.screen, EditorScreen) and app.screen.live.loaded)
        await pilot.press("escape")
        await until(lambda: isinstance(app.screen, LaunchpadScreen))


async def test_the_launchpad_goes_on_with_what_was_saved(home: Path) -> None:
    """Enter after an edit of a sample starts the copy with the changes, not the sample."""
    app = AcrfApp(AppOptions(Path("runs")))
    async with app.run_test(size=(120, 40)) as pilot:
        await until(lambda: isinstance(app.screen, LaunchpadScreen) and bool(app.screen.query(ConfigList)))
        configs = app.screen.query_one(ConfigList)
        await until(lambda: configs.chosen is not None)
        await pilot.press("down", "e")
        sample = configs.chosen
        assert sample is not None
        await until(lambda: isinstance(app.screen, EditorScreen) and app.screen.live.loaded)
        await pilot.press(*["down"] * 3, "enter", "7", "enter", "f2")
        await until(lambda: isinstance(app.screen, SaveAsDialog))
        await pilot.press("enter")
        await until(lambda: isinstance(app.screen, EditorScreen) and not app.screen.live.dirty)
        await pilot.press("escape")
        saved = own_config_folder() / sample.path.name
        await until(lambda: configs.chosen is not None and configs.chosen.path == saved)
        assert load_config(saved).epochs == 7


@pytest.mark.parametrize(("width", "height"), [(80, 24), (200, 50), (60, 20), (40, 10)])
async def test_any_size_is_drawn_and_f4_switches_sides(mine: Path, width: int, height: int) -> None:
    async with editing(mine, size=(width, height)) as editor:
        await editor.choose("epochs")
        await editor.press("enter", "f4")
        await editor.pilot.pause()
        assert editor.screen.focused is editor.screen.yaml or width < 60
        await editor.pilot.resize_terminal(100, 30)
        await editor.pilot.resize_terminal(width, height)
        assert editor.screen.yaml.text == MINE


async def test_every_key_can_be_remapped_and_explains_itself(mine: Path) -> None:
    async with editing(mine) as editor:
        for owner in (EditorScreen, FieldList, InlineEditor, SaveAsDialog, UnsavedDialog, DraftDialog, OvertakenDialog):
            for binding in owner.BINDINGS:
                assert isinstance(binding, Binding)
                assert binding.action.startswith("app.focus") or (binding.id and binding.tooltip), binding
        await editor.press("question_mark")
        await editor.until_asked(HelpDialog)


async def test_going_down_and_typing_draw_a_row_not_the_screen(mine: Path) -> None:
    async with editing(mine) as editor:
        await editor.choose("seed")
        await editor.type("12")
        await editor.read()
        drawn = cells_drawn(editor.screen)
        await editor.type("3")
        await editor.read()
        assert 0 < sum(drawn) < 120 * 8


def cells_drawn(screen: EditorScreen) -> list[int]:
    """Cells that the screen draws from now on."""
    drawn: list[int] = []
    compositor = screen._compositor
    render: Callable[..., object] = compositor.render_update

    def counting(*args: object, **kwargs: object) -> object:
        drawn.append(sum(region.area for region in compositor._dirty_regions))
        return render(*args, **kwargs)

    compositor.render_update = counting
    return drawn


def test_nothing_of_the_editor_is_imported_before_it_is_opened() -> None:
    code = (
        "import sys, acrf_tui.app, acrf_tui.screens.launchpad, acrf_tui.cli\n"
        "print([name for name in sys.modules if 'editor' in name and name.startswith('acrf')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

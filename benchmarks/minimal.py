"""The least that a Textual app can be: what the first paint of ours is measured against."""

from __future__ import annotations

from textual.app import App, ComposeResult
from textual.widgets import Static

GREETING = "nothing but this line"


class MinimalApp(App[None]):
    def compose(self) -> ComposeResult:
        yield Static(GREETING)


if __name__ == "__main__":
    MinimalApp().run()

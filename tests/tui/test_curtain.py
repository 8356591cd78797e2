"""A dashboard is drawn once it has something to show, and in any case soon."""

from __future__ import annotations

import threading

import pytest
from fake_run import FakeApp, FakeSource, make_history
from textual._compositor import Compositor
from waiting import until

from acrf_engine.run.telemetry import History
from acrf_tui.charts.lines import LineView


class SlowStore(FakeSource):
    """A history that is read when the test says so."""

    def __init__(self) -> None:
        super().__init__(make_history(300))
        self.readable = threading.Event()

    def history(self) -> History:
        self.readable.wait(20)
        return super().history()


@pytest.mark.parametrize("slow_store", [False, True])
async def test_no_half_made_frame_goes_over_the_line_and_no_screen_stays_empty(
    slow_store: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = SlowStore()
    source.end()  # of an ended run nothing comes that would paint again
    if not slow_store:
        source.readable.set()
    app = FakeApp(source)
    drawn: list[bool] = []
    draw = Compositor.render_update

    def watched(self: Compositor, **kwargs: object) -> object:
        if app.screen is getattr(app, "dashboard", None):
            drawn.append(app.dashboard.run_state.training)
        return draw(self, **kwargs)

    monkeypatch.setattr(Compositor, "render_update", watched)
    async with app.run_test(size=(120, 40)):
        await until(lambda: bool(drawn))
        assert drawn[0] is not slow_store
        source.readable.set()
        await until(lambda: drawn[-1])
        await until(lambda: "300" in shown_values(app))


def shown_values(app: FakeApp) -> str:
    """The first column of facts in the progress panel."""
    values = app.dashboard.query_one("#fact-values-0", LineView)
    return "".join(values.render_line(y).text for y in range(values.size.height))

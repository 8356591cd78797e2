"""The keys of the dashboard: one table, which help, palette and the keys line read."""

from __future__ import annotations

from textual.binding import Binding, BindingType

PANEL_NAMES = ("progress", "loss", "anchors", "GPU", "w(σ)", "LR", "journal", "overview")


def command_binding(key: str, action: str, description: str, id: str, tooltip: str, *, show: bool = True) -> Binding:
    """A binding that a user can remap by its id."""
    return Binding(key, action, description, show=show, id=id, tooltip=tooltip)


BINDINGS: list[BindingType] = [
    command_binding("space", "pause_or_resume", "Pause", "run.pause", "Pause or resume training; the model stays"),
    command_binding("c", "command('checkpoint')", "Save", "run.checkpoint", "Save a checkpoint at the next step"),
    command_binding("s", "command('preview')", "Preview", "run.preview", "Render preview pictures now"),
    command_binding("l", "learning_rate", "LR", "run.learning-rate", "Change the learning rate"),
    command_binding("t", "tweak", "Tweak", "run.tweak", "Change lambdas, gamma, jitter or the clip level"),
    command_binding("v", "vram", "Free VRAM", "run.vram", "While paused: give the VRAM back, or take it again"),
    command_binding("z", "zoom", "Zoom", "view.zoom", "Maximise the focused panel, or restore it"),
    command_binding("escape", "restore", "Restore", "view.restore", "Restore the maximised panel", show=False),
    command_binding("f", "freeze", "Freeze", "view.freeze", "Hold the view still; training goes on"),
    command_binding("slash", "filter", "Filter", "journal.filter", "Filter the journal", show=False),
    command_binding("w", "log", "Log", "view.log", "The worker's log: follow it, filter it", show=False),
    command_binding("q", "leave", "Leave", "app.leave", "Detach, or checkpoint and stop"),
    command_binding("question_mark", "help", "Help", "app.help", "Show the keys that work now"),
    command_binding("p", "panels", "Panels", "view.panels", "Choose which panels are shown"),
    command_binding("h", "hide", "Hide", "view.hide", "Hide the focused panel, or bring it back", show=False),
    command_binding("g", "log_scale", "Log scale", "loss.log", "Loss: logarithmic or linear scale", show=False),
    command_binding("plus,equals_sign", "zoom_loss(1)", "Zoom in", "loss.zoom-in", "Charts: fewer steps", show=False),
    command_binding("minus", "zoom_loss(-1)", "Zoom out", "loss.zoom-out", "Charts: more steps", show=False),
    command_binding("B", "series('loss_balanced')", "Balanced", "loss.balanced", "Loss: balanced", show=False),
    command_binding("R", "series('loss')", "Raw", "loss.raw", "Loss: raw trace", show=False),
    command_binding("C", "series('loss_char')", "Char", "loss.char", "Loss: Charbonnier component", show=False),
    command_binding("O", "series('loss_cos')", "Cos", "loss.cos", "Loss: cosine component", show=False),
    command_binding("F", "series('loss_fft')", "FFT", "loss.fft", "Loss: FFT component", show=False),
    command_binding("V", "series('validation')", "Validation", "loss.validation", "Loss: validation", show=False),
    *(
        command_binding(str(n), f"panel({n})", f"Panel {n}", f"view.panel-{n}", f"Go to the {name} panel", show=False)
        for n, name in enumerate(PANEL_NAMES, start=1)
    ),
]

"""Ways a worker leaves, and how an error is told to the user."""

from __future__ import annotations

from dataclasses import dataclass

from acrf_engine.protocol import Command
from acrf_engine.run.wire import clip_text

USERS_ERRORS = ("ConfigError", "DataError", "PictureError", "ModelError", "MismatchError", "TargetsError")
"""By name: config, data or model are wrong, rather than the program or the machine."""
PLAIN_ERRORS = ("NonFinite", "CheckpointError", "LoraError", "LoaderDied", "RunError", "RankOutOfMemory")
"""By name: errors whose message says it all."""
GPU_ADVICE = (
    "the GPU failed in the middle of its work: look at `nvidia-smi` and the kernel's log (`dmesg`), restart the "
    "machine where it does not answer, then continue with `acrf-tui resume`"
)


class StopAsked(Exception):
    """Leave: checkpoint if there is anything to keep, then end."""

    def __init__(self, reason: str, command: Command | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.command = command


@dataclass(frozen=True)
class LastWords:
    """Why a process of a run ends. `kind`: as in protocol.Failed."""

    message: str
    traceback: str = ""
    kind: str = "failed"


class Orphaned(Exception):
    """The supervisor is gone."""


def is_the_users(error: BaseException) -> bool:
    """Whether the user has to change config, data or model."""
    return type(error).__name__ in USERS_ERRORS


def for_the_user(error: BaseException) -> str:
    """The error as one message."""
    if type(error).__name__ == "AcceleratorError" or "CUDA error" in str(error):
        return clip_text(f"{GPU_ADVICE} ({type(error).__name__}: {str(error).partition(chr(10))[0]})", 1200)
    known = is_the_users(error) or type(error).__name__ in PLAIN_ERRORS
    return clip_text(str(error) if known else f"{type(error).__name__}: {error}", 1200)

"""The environment that a run needs to repeat bit for bit."""

from __future__ import annotations

import platform

import torch


def environment() -> dict[str, str]:
    """Versions and device that a bit-exact repetition depends on."""
    import accelerate
    import bitsandbytes
    import diffusers
    import peft

    import acrf_engine

    return {
        "acrf-tui": acrf_engine.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "peft": peft.__version__,
        "accelerate": accelerate.__version__,
        "bitsandbytes": bitsandbytes.__version__,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine(),
        "threads": str(torch.get_num_threads()),
    }

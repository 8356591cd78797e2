"""What can be wrong with a LoRA."""

from __future__ import annotations


class LoraError(Exception):
    """A LoRA cannot be made, saved or read; the message says what and why."""


class TargetsError(LoraError):
    """`lora` of the config asks for modules that this model has not, or that must stay frozen."""

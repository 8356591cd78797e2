"""Models: loading, velocity, LoRA, memory, and the built-in tiny model."""

"""Few-step previews: what the LoRA does to pictures, beside the same seed without it."""

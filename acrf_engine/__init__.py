"""AC-RF LoRA training for Z-Image: the engine. It never imports `acrf_tui` or textual."""

__version__ = "0.1.0"

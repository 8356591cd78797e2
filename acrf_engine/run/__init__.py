"""A run seen from outside: its folder, telemetry, supervisor and the link to it. Nothing here imports torch."""

"""The training loop and what it keeps: optimizer, schedule, checkpoints, and the worker process around it."""

"""Metrics for the trackers of other programs: events in, accelerate's trackers out."""

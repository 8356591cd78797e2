"""What acrf-tui costs, measured as ratios within one run: `python -m benchmarks [NAME ...]`."""

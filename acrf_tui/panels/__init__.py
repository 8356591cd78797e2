"""The panels of the dashboard, one file each. A panel reads the state and draws it; panels never touch each other."""

"""Other trainers' configs read into ours: nothing is dropped without being listed."""

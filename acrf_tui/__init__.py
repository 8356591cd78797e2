"""The app and the command line of acrf-tui. Of the engine it imports config, protocol and run; never torch."""

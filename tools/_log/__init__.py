"""The parts of `python -m tools.log` and `python -m tools.usage`."""

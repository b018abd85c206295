"""The parts of `python -m tools.batch`."""

"""The parts of `python -m tools.ws`."""

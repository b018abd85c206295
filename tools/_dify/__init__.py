"""The parts of `python -m tools.dify`."""

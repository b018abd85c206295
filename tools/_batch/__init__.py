"""The modules of `python -m tools.batch`."""

"""The modules of `python -m tools.ws`."""

"""The modules of `python -m tools.dify`."""

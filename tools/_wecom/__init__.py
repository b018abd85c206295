"""The modules of `python -m tools.wecom`."""

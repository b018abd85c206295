"""The checks of `python -m tools.doctor`, one module per dependency."""

"""The checks of `python -m tools.doctor`: one module for each party."""

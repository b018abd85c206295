"""Health and metrics for operators: background probes, and the metrics of all workers merged into one page.

Imports floor 0 alone. The metrics themselves are in `services.metrics`.
"""

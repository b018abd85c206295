"""What operators see: health probed in the background, and the metrics of all workers merged into one page.

Imports floor 0 alone. Names of metrics are in `services.metrics`.
"""

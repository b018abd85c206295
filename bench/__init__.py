"""Benchmarks. `python -m bench` runs all `parts`. `stage` has the servers, `load` the clients."""

"""Benchmarks. `python -m bench` runs all parts, one module each. `stage` has the servers, `load` the clients."""

"""Benchmarks: `python -m bench` measures everything, each module one part. `stage` has the servers, `load` clients."""

"""Health probed in the background, and the metrics of all workers merged into one page.

Imports floors 2 and 3 alone. Names of metrics are in `services.metrics`. Probes are cached, so a report never waits
long, and `/readyz` depends on no outside party. `metrics_files.py` renders the workers' files in a process of its own;
`otlp_service.py` sends spans to a collector, where one is set; `replica_store.py` is the registry of running replicas.
`metrics_folder.py` imports nothing, because the folder must be named before prometheus-client is imported.
"""

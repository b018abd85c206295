"""Builds, starts and closes a replica: the only package that knows all others.

`container.py` makes every long-lived object from the settings, with the factories of `factories.py`, `batches.py` and
`wecom.py`, and ends them; `blueprints.py` registers the channels' endpoints; `probes.py` makes the report of /health.
"""

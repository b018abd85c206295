"""Shared by all HTTP addresses: reading requests, authentication, errors in one shape, origins, compression.

A new REST address begins with an `Operation` of `rest.py`, which describes it, reads body and query by their models
and authenticates the caller. `cross_site.py` rejects foreign pages and host names; `guarded.py` limits wrong
credentials by address and checks administrators. `errors.py` gives every error the one shape, except those of WeCom's
callbacks, health and metrics. `compression.py` works in slices, between which other requests are served.
"""

"""One question over plain HTTP, answered as JSON or as server-sent events: `endpoints.py` has the addresses."""

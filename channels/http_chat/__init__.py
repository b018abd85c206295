"""The REST API for one question, answered as JSON or as server-sent events: start in `endpoints.py`."""

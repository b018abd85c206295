"""The registry of the open sockets of all replicas in Redis. Imports `redis`; changes begin in `store.py`."""

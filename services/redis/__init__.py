"""Access to Redis: bounded waits, pipelines, Cluster and Sentinel, one retry, one log line per outage.

Imports `config` and floor 0 alone; stores of other packages are built on `store.ScriptRunner` and keep only keys and
their meaning. A change of how calls are sent begins in `store.py`.

redis-py packs commands and reads replies (with hiredis). Its pool is replaced: it costs 14 µs more per round trip, and
100 µs under gevent. Its Cluster and Sentinel clients are not used: they retry by themselves and bound no exchange as a
whole.
"""

"""Access to Redis: timeouts, pipelines, Cluster and Sentinel, one retry, one log line per outage.

Imports only `config` and floor 2; stores of other packages use `store.ScriptRunner`. `store.py` retries and notes
outages, `calls.py` makes one round trip to a server, `cluster.py` to the nodes of a Redis Cluster, `client.py` has the
connections, and `routes.py` finds the server and bounds every wait.

redis-py packs commands and reads replies (with hiredis). Its pool is replaced: it costs 14 µs more per round trip, and
100 µs under gevent. Its Cluster and Sentinel clients are not used: they retry by themselves and limit single waits
only, not an exchange.
"""

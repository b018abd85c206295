"""Access to Redis: timeouts, pipelines, Cluster and Sentinel, one retry, one log line per outage.

Imports only `config` and floor 0; stores of other packages use `store.ScriptRunner`. `store.py` sends calls,
`client.py` has the connections, `routes.py` finds the server, `cluster.py` the nodes of a Redis Cluster.
"""

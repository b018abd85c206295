"""How Redis is reached: bounded waits, pipelines, Cluster and Sentinel, one retry, one log line per outage.

Imports `config` and floor 0 alone; stores of other packages are built on `store.ScriptRunner`. A change of how calls
are sent begins in `store.py`, one of how a server is found in `connections.py`.
"""

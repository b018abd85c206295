"""Rate limits over all replicas, and a limit for wrong credentials per address.

Imports `redis`. The slots of running questions are not here: they belong to streams.
"""

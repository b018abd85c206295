"""Rate limits over all replicas, and limits on wrong credentials by address.

Imports `redis`. Slots of running questions are not here: they belong to their streams. `RATE_LIMIT_USER` does not
apply to WeCom, since a person has a few slots there; questions over sockets and HTTP are counted in Redis, by the
library `limits` over our own client.
"""

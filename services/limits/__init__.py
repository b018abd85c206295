"""How often somebody may do something: rates over all replicas, and wrong credentials by address.

Imports `redis`. Slots of running questions are not here: they belong to their streams.
"""

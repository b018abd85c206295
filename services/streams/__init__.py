"""One answer in Redis: written by its owner, read by anybody on any replica.

Imports `redis` and floor 0. `store.py` has the keys and the calls of the Lua steps in `lua/`; `owned_stream.py` is the
owner's side without I/O, `flusher.py` its only writer, `producer.py` turns one question into one finished stream,
`following.py` is one reader's way. A new field of a stream begins in `records.py`.
"""

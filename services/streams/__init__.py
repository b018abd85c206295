"""One answer in Redis: its owner writes it, clients on any replica read it.

Imports `redis` and floor 0. `store.py` has the keys and calls the Lua scripts in `lua/`; `owned_state.py` is the
owner's side without I/O, `owned_stream.py` makes it safe in threads, `flusher.py` alone writes it, `producer.py` turns
one question into one finished stream, `following.py` follows a stream for one reader. A new field of a stream begins in
`store.py`.
"""

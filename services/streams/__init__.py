"""One answer in Redis: written by its owner, read by any client on any replica.

Imports `redis` and floor 2. `store.py` has the keys and calls the Lua scripts in `lua/`; `owned_stream.py` is the
owner's side without I/O (so tests can try every order of replies on it), `flusher.py` is the only writer, `producer.py`
turns one question into one finished stream, `manager.py` owns the threads and their slots, `following.py` follows a
stream for one reader. A new field of a stream begins in `store.py`.

**Writing.** A flush starts at once for first words, fields and ends. For text that goes on it starts ten times the last
flush's duration after that flush, 10 to 150 ms: without this pause each delta is a write, which costs the worker a
quarter and Redis three quarters more. Each append renews the lease; a stream that was not renewed for a quarter of its
lease is written without updates, so none waits longer than a third.

**Reading.** A cursor is the list's absolute index, valid on every replica. A page has at most 128 chunks and 16 KiB, a
chunk at most 16 KiB (`lua/chunks.lua`), and the next page is read when the connection has taken the last one. A reader
whose cursor lies before `start`, or past an end that another owner wrote, gets one `reset`; when the same owner
restores text that Redis lost, the reader waits. `long_text.py` reads the last frame of a long answer in slices: 1,000
slow readers of 1 MiB cost 65 to 130 MiB together, and 1,260 to 2,530 MiB when each held the whole text
(`tests/scenarios/http/test_attacks.py`). A Redis that has lost a stream gets it again from its owner
(`following.Misses`).
"""

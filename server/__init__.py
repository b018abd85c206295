"""The production server: a gunicorn worker that drains, its connections, and the fast path of WeCom callbacks.

May import everything below the application. A change of how a replica starts, drains or accepts connections begins in
`worker.py`; `fast_path.py` is the callbacks' fast path alone, and its `ENABLED` turns it off.

**Connections.** The worker accepts 500 connections more than there are slots for ordinary requests (`SOCKETS_MAX` +
`HTTP_WAITS_MAX` + 500); each port has slots of its own. An ordinary request needs a slot and counts for its client's
address (`CONNECTIONS_PER_IP`); without a slot it gets 503 or 429, and its connection ends. Callbacks and probes
(`/healthz`, `/readyz`) need none. When fewer than 100 connections can still be accepted, each new one closes another:
the one that has waited longest for a request, or a callback that takes longer than 5 s to arrive. So a client that
holds all ordinary slots stops no callback. `sockets.py` ends a connection whose client reads nothing of a reply for
30 s, because gevent's `sendall` waits for ever; the kernel buffers at most 256 KiB for such a client.

**The fast path.** Nearly every request polls a running answer. `fast_path.py` answers a connection's bytes when they
are one complete callback, and gives everything else (requests in pieces, chunked bodies, other addresses, the last
request of a connection) to gunicorn's request, environ and response, which cost more than the rest of a poll.

**Drain.** On TERM and HUP the worker closes its listener only where a sibling or a new generation accepts
connections; otherwise it keeps accepting until the drain is over, so no connection is refused.
"""

"""One question over plain HTTP, answered as JSON or as server-sent events: `endpoints.py` has the addresses.

`replies.py` shows a stream as events and maps its end to an HTTP status; `channels/following.py` reads the stream. A
request holds a slot (`HTTP_WAITS_MAX`) until the server is done with its reply. The next piece of a reply is read from
Redis, or from its owner, when the one before it was sent; the server disconnects a client that reads nothing for 30 s,
and one that closes its side is noticed within a second.

Rates, drains and a full replica reject new questions only: a question that was accepted before is found by its id, and
one that got no slot stores no refusal. A leaving replica serves running answers for `DRAIN_SECONDS`, then ends its
event streams without a last event, which tells clients to reconnect; a request that waits for JSON gets 503 with the
stream's id. The last event's id is `end`: an `EventSource` that reconnects with it gets 204, which stops it.
"""

"""The answer providers: `base.py` has their interface, `registry.py` their names.

Imports `http` and floor 2. Each provider has a package: `service` speaks the wire format, `turn` is a state machine
without I/O that knows when an answer is over, `provider` joins the two. A new provider begins as a subclass of
`base.BaseRAGProvider`, entered in `registry.PROVIDERS`. This package imports nothing, so a plug-in that needs `base`
loads no HTTP client.

`plugins.py` loads providers of other people's packages. Each provider has its own pool of HTTP connections per process,
because providers are different parties. For a provider that keeps no conversations, `services.conversations` keeps the
last turns and sends them along, bounded by tokens and age; a turn is kept when its answer is whole, once per stream,
and not after the person started a new conversation.
"""

"""The answer providers: what each offers is in `base.py`, which one a name means in `registry.py`.

Imports `http` and floor 0. Each provider has a package: `service` speaks the wire format, `turn` is a state machine
without I/O that knows when an answer is over, `provider` joins the two. A new provider begins as a subclass of
`base.BaseRAGProvider`.
"""

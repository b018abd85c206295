"""The answer providers. `base.py` defines their interface, `registry.py` maps names to providers.

Imports `http` and floor 0. Each provider has a package: `service` speaks the wire format, `turn` is a state machine
without I/O that knows when an answer is over, `provider` joins the two. To add a provider, subclass
`base.BaseRAGProvider` and enter it in `registry.PROVIDERS`.

Import names from their modules: this package imports nothing, so a plug-in that needs `base` loads no HTTP client.
"""

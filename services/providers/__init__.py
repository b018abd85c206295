"""The answer providers: `base.py` has their interface, `registry.py` their names.

Imports `http` and floor 2. Each provider has a package: `answer.py` is a state machine without I/O that knows when an
answer is over, `provider.py` sends the question and feeds it. A new provider begins as a subclass of
`base.BaseRAGProvider`, entered in `registry.PROVIDERS`. This module imports nothing, so a plug-in that needs `base`
loads no HTTP client. `recovery.py` polls for the answer of a run whose stream broke off, for any provider that keeps
answers.

Each provider has its own pool of HTTP connections per process, because providers are different parties. For a provider
that keeps no conversations, `services.conversations` keeps the latest questions and answers and sends them along.
"""

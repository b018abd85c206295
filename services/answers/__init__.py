"""From a question to its answer: the gateway, the conversation's queue and memory, the provider's run, takeover.

Imports `streams`, `identity` and `providers`. Channels call `gateway.Gateway` and nothing else here. A change of the
queue or of what a conversation remembers begins in `conversation_store.py` and `conversation_memory.py`; a change of
what differs by channel begins in the channel's `rules.py`.
"""

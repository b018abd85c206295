"""One question's way to its answer: gateway, turn in the conversation, the provider's run, takeover.

Imports `streams`, `identity` and `providers`. Every channel calls `gateway.Gateway` and nothing else here. Whose turn
it is and what a conversation remembers begins in `conversation_store.py` and `memory.py`.
"""

"""Conversations of clients that send what was said before with each question, as OpenAI's clients do.

Imports `redis`, `providers` and floor 2. `earlier.py` writes these turns into a question, and tells them to a provider
whose conversation remembers nothing. `turn_store.py` finds the conversation that a client goes on with by a hash of the
turns, and a request that a client sends again by its key.
"""

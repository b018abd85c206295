"""The memory and the queue of a conversation.

Imports `redis`, `providers` and floor 2. `store.py` has the queue of questions and the provider's conversation id, in
the round trip that opens a stream (`lua/turn.lua`); `history_store.py` keeps the last exchanges for providers that keep
no conversations; `memory.py` joins the two for the producer. A change of the queue or of the memory begins in these.

Clients such as OpenAI's send the earlier messages with each question: `earlier.py` stores them with the question, and
passes them to a provider that does not know the conversation. `session_store.py` finds the conversation that such a
client continues by a hash of its messages, and a repeated request by its key.
"""

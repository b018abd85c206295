"""What a conversation remembers, and whose turn it is.

Imports `redis`, `providers` and floor 2. `store.py` has the queue of questions and the provider's conversation id, in
the round trip that opens a stream (`lua/turn.lua`); `history_store.py` keeps the last turns for providers that remember
nothing; `memory.py` joins the two for the producer. A change of the queue or of the memory begins in these.

Clients such as OpenAI's send what was said before with each question: `earlier.py` writes these turns into a question,
and tells them to a provider whose conversation remembers nothing; `session_store.py` finds the conversation that such a
client goes on with by a hash of the turns, and a request that it sends again by its key.
"""

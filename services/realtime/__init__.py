"""The session of a realtime socket: a state machine without I/O, clock or threads.

Imports floor 2, `streams` records and batch records. Messages and events go in, frames and effects come out.
`messages.py` parses a message, `session.py` acts on it, `answers.py` has the unfinished answers, `frames.py` builds
what is sent. `utils.questions.detection` finds the question in an utterance by rules of grammar, in about 0.1 ms; any
detector with the same function can replace it. A question that only the voice marks cannot be found in the text:
clients send `instant_query` for it.
"""

"""The session of a realtime socket: a state machine without I/O, clock or threads.

Imports floor 2, `streams` records and batch records. Messages and events go in, frames and effects come out; a new
message begins in `messages.py`, its consequences in `session.py`,
and those of an answer in `answers.py`. `utils.questions.detection` finds the question in an
utterance by rules of grammar, in about 0.1 ms; any detector with the same function can replace it. Questions that only
the voice marks have no sign in the text: `instant_query` is for them.
"""

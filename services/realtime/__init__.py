"""The session behind a realtime socket: a state machine without I/O, clock or threads.

Imports floor 0, `streams` records and batch records. Messages and events go in, frames and effects come out; a new
message begins in `messages.py`, what follows from it in `session.py`.
"""

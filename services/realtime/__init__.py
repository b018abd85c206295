"""The session of a realtime socket: a state machine without I/O, clock or threads.

Imports floor 0, `streams` records and batch records. Messages and events go in, frames and effects come out. A new
message type begins in `messages.py`, its effects in `session.py`.
"""

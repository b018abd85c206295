"""Code shared by both WebSocket channels: handshake, reading, writing, sessions, and this replica's socket registry.

Imports `channels.web`. Start in `wire.py` to change how frames are sent, in `endpoint.py` to change who may open a
socket.
"""

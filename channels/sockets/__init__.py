"""What both WebSocket channels share: handshake, wire, inbox, sessions, and this replica's registry of sockets.

Imports `channels.web`. A change of frames on the wire begins in `wire.py`, one of who may open a socket in
`endpoint.py`.
"""

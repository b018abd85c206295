"""Shared by both WebSocket channels: handshake, wire, sessions, and this replica's registry of sockets.

Imports `channels.web` and `channels.following`. A change of frames on the wire begins in `wire.py`, one of access to a
socket in `endpoint.py`. Frames of each channel: docs/websocket.md.

1. **Handshake.** `admission.py` checks origin, rate and credential before there is a socket. `socket.py` is
   `websockets` without its I/O (bounds for messages and fragments, UTF-8 checks, closing handshake), one lock around
   whole frames, a bounded inbox, heartbeats by bytes received. An idle socket costs one greenlet.
2. **Ask.** A question goes to the gateway when it arrives, also while another answer is shown, so a broken socket does
   not lose it. Its id is an HMAC over principal, client id and the client's message id: a resent question finds its
   stream.
3. **Follow.** One thread per socket (`answer_queue.py`) shows the answers in order, by `channels.following`. It also
   finds lapsed leases and starts their takeover.
4. **End.** A socket's end ends no stream, with one exception: the realtime channel cancels when its client closes with
   1000 or without a code. A leaving replica closes idle sockets with 1012 at once, the others after their answer.
"""

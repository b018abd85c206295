"""WeCom's callback: signature, AES envelope, message and reply.

Imports floor 0 alone and does no I/O. `crypto.py` has the classic names of WeCom's library, which `demo` re-exports. A
new message type begins in `message.py`, a new check in `callback.py`.
"""

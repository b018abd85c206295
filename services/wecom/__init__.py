"""WeCom's callback in our terms: signature, AES envelope, message, reply.

Imports floor 0 alone and does no I/O. `crypto.py` has the classic names of WeCom's library, which `demo` re-exports; a
new kind of message begins in `callback.py`.
"""

"""WeCom's callback: signature, AES envelope, message and reply; and the robots of its groups.

`group_robot_service.py` posts to a group. Everything else imports floor 0 alone and does no I/O. `crypto.py` has the
classic names of WeCom's library, which `demo` re-exports; a new message type begins in `message.py`, a new check in
`callback.py`. AES is OpenSSL's by `cryptography` (a dependency of PyMySQL already): a third of pycryptodome's time for
a reply of 2 KB, half of it for 23 KB. JSON is orjson's, or Python's where orjson rejects it (half surrogate pairs).
"""

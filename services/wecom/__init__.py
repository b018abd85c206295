"""WeCom: its callback's signature, AES envelope and message, the frames people see, `response_url`, group robots.

Only `response_service.py` and `group_robot_service.py` do I/O. `frames.py` decides what people see of an answer and
what its late message has, which `late_answers.py` sends; `cards/` makes template cards. `crypto.py`
has the classic names of WeCom's library, which `demo` re-exports; a new message type begins in `message.py`, a new
check in `callback.py`. AES is OpenSSL's by `cryptography` (a dependency of PyMySQL already): a third of pycryptodome's
time for a reply of 2 KB, half of it for 23 KB. JSON is orjson's, or Python's where orjson rejects it (half surrogate
pairs).
"""

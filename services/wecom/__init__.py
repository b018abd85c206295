"""WeCom's protocol: callbacks, frames, cards, late messages, group robots, the directory and the long connection.

`callback.py` checks and decrypts callbacks and their files (`crypto.py`), `message.py` reads the message or the rating
inside. `frames.py` renders an answer's frame and its late message, which `late_answers.py` sends; `cards.py` makes
template cards. `handoff.py` posts to group robots, `alerts.py` to that of the operators, and `fault_watch.py` finds
what it posts without being sent it. A new message type begins in `message.py`, a new check in `callback.py`.

`crypto.py` has the classic names of WeCom's library, which `demo` re-exports. AES is OpenSSL's by `cryptography` (a
dependency of PyMySQL already): a third of pycryptodome's time for a reply of 2 KB, half of it for 23 KB. JSON is
orjson's, or Python's where orjson rejects it (half surrogate pairs).
"""

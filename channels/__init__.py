"""The channels: they parse what comes in, ask the gateway and render answers. Flask is used here and in `app.py` only.

Channels do not import each other; shared code is in `asking.py`, `web` and `sockets`.
"""

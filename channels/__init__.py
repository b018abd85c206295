"""Channels: how a message comes in and how its answer goes out. Flask is used here and in `app.py`, nowhere below.

A channel parses, asks the gateway and renders. Channels do not import each other; `web` and `sockets`, and `waiting` of
the channels over plain HTTP, are shared. `following.py` reads an answer for every one of them.
"""

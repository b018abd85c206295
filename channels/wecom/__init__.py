"""WeCom's callbacks: `channel.py` asks and renders frames, `callbacks.py` answers requests before Flask.

`commands.py` finds commands among texts and answers them; `handoff.py` tells a group of those who want a human.

`callbacks.py` takes `POST /wechat/callback[/<bot>]` from the fast path (`server.lane`) and, as WSGI, from every other
server; Flask gets all other requests. A poll that finds its answer still growing is logged at DEBUG; everything else,
and a poll that took a second, at INFO.
"""

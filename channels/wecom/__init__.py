"""WeCom's callbacks: `channel.py` reads and renders frames, `callbacks.py` answers requests before Flask.

`messages.py` asks questions, welcomes people and takes ratings, for callbacks and for the long connection alike.

`commands.py` finds commands among texts and answers them; `handoff.py` tells a group of those who want a human.

`callbacks.py` takes `POST /wechat/callback[/<bot>]` from the fast path (`server.fast_path`) and, as WSGI, from every
other server; Flask gets all other requests. A poll that finds its answer still growing is logged at DEBUG; everything
else, and a poll that took a second, at INFO.
"""

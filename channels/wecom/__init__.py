"""WeCom as a channel: `channel.py` answers callbacks with frames, `callbacks.py` serves their requests before Flask.

`long_connection.py` answers what a long connection receives, over the sockets of `link_socket.py`. For both,
`messages.py` asks questions, welcomes people and takes clicks and ratings, and `commands.py` carries out commands.

`callbacks.py` takes `POST /wechat/callback[/<bot>]` from the fast path (`server.fast_path`) and, as WSGI, from every
other server; Flask gets all other requests. A poll of a growing answer is logged at DEBUG; all other callbacks, and a
poll that took a second, at INFO.
"""

"""WeCom's long connection as state in Redis: which replica holds a bot's connection. No sockets.

`protocol.py` has the commands, error codes and limits; `lease_store.py` the fenced lease of each bot;
`open_answers_store.py` how far the answers were sent that are not whole yet. The connection itself is in
`channels/wecom/long_connection/`.
"""

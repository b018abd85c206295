"""WeCom's long connection: one subscribed WebSocket per bot, held by one replica at a time.

`subscriber.py` runs on every replica for every bot in websocket mode. The replica with the bot's lease
(`lease_store.py`) connects and serves the connection (`link.py`); the others look at the lease every
second. `protocol.py` has the commands, error codes and limits.

`channels/wecom/long_connection.py` answers the messages and events that a link receives. `answers.py` sends the
answers, which `view.py` renders; `open_answers_store.py` has the progress of each, so that any holder continues it.
`pushes.py` sends messages that answer no question, `uploads.py` files, and `allowance_store.py` counts both for WeCom's
limits.
"""

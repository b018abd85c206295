"""WeCom's long connection: one subscribed WebSocket per bot, held by one replica at a time.

`subscriber.py` runs on every replica for every bot in websocket mode. The replica with the bot's lease
(`lease_store.py` of `services/wecom/long_connection/`) connects (`connect.py`) and serves the connection (`link.py`);
the others look at the lease every second. A change of frames on the wire begins in `link.py`.

`inbound.py` asks what arrives, `answers.py` serves the answers that are open (`delivery.py` sends one: its frames, its
finish frame, what follows), `view.py` renders them, `files.py` and `uploads.py` send files, `pushes.py` what nobody
asked for. How far an answer was sent is in `open_answers_store.py` there: any holder goes on with it.
"""

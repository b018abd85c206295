"""The realtime WebSocket: `channel.py` runs `services.realtime.session`; `answers.py` asks and shows its answers, and
`task_updates.py` reports the progress of batch tasks.

`channels.sockets.outbox` sends the session's frames in the order they were made; the reader never waits for an answer.
"""

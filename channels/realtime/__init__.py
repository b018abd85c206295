"""The realtime WebSocket: `channel.py` runs `services.realtime.session`, asks and shows its answers, and sends its
frames in the order they were made; the reader never waits for an answer. `task_updates.py` reports the progress of
batch tasks.
"""

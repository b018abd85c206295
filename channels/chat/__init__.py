"""The chat WebSocket: `frames.py` validates client frames, `channel.py` asks, `answers.py` sends answers."""

"""The chat WebSocket: `frames.py` checks what clients send, `channel.py` asks, `answers.py` shows answers."""

"""The realtime WebSocket: `channel.py` executes what `services.realtime.session` decides; progress of batches."""

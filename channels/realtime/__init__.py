"""The realtime WebSocket: `channel.py` does what `services.realtime.session` decides; news of batches."""

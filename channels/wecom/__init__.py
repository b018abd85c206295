"""WeCom's callbacks: `channel.py` asks and renders frames, `callbacks.py` answers requests before Flask."""

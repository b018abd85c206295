"""WeCom's callbacks: `channel.py` asks and renders stream frames, `callbacks.py` serves requests before Flask."""

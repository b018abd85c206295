"""A mock Dify: `server.py` holds its runs, `scripts.py` names what it can do, `wire.py` writes its format."""

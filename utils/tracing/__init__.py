"""The ids by which a request is followed through logs and other services; `context.py` keeps and reads them."""

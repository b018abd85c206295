"""The settings: variables with types and checks, the texts that users see, where log lines go.

Imports nothing of ours but `services.errors`. A new setting begins in `groups.py`; a new sentence in `texts.py`.
"""

"""The settings: variables with types and checks, the sentences that users see, and logging.

Imports nothing of ours but `utils`. A new setting begins in `groups.py`, a new sentence in `texts/`.
`settings.py` is the only reader of the environment. The start needs bots of WeCom, or a setting that admits others:
`API_KEYS`, or `WEBSOCKET_AUTH` other than key.
"""

#: The version of the product.
VERSION = "0.1.0"

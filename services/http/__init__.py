"""An HTTP client for long answers: pooled connections, and exchanges whose blocked reads another thread can end.

Imports floor 2 and `utils` alone. Every provider and the auth API have a client of their own.

The proxy and CA bundle of an address follow the rules of requests; urllib3's pools keep its connections, and urllib3
reads the replies.

`fetcher.py` is for addresses from messages and requests, where `addresses.py` allows them. `retries.py` repeats
requests.
"""

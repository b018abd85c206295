"""HTTP clients for long answers: pooled connections, and exchanges whose blocked reads another thread can end.

Imports floor 0 and `utils` alone. Every provider and the auth API have a client of their own; a change of timeouts or
pooling begins in `service.py`.

requests resolves once how an address is reached (proxies, CA bundle); urllib3 sends each question there, head and body
in one piece. One thread bounds all reads, because a timer for each read is a tenth of a delta's cost. Chunked bodies
are decoded without I/O here, because the libraries' decoding is more than half of the cost of reading a delta.
"""

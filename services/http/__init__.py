"""How HTTP services are reached: pooled connections, and exchanges whose blocked reads another thread can end.

Imports floor 0 and `utils` alone. Every provider and the auth API have a client of their own; a change of timeouts or
pooling begins in `service.py`.
"""

"""An HTTP client: pooled connections, and exchanges whose blocked reads another thread can end.

Imports floor 0 and `utils` alone. Each provider and the auth API have a client of their own. Changes of timeouts or
pooling begin in `service.py`.
"""

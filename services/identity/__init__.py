"""Who asks: users of WeCom, callers of REST and sockets, and the keys that name and seal what is theirs.

Imports `redis`, `sql` and `http`. The order of cached token, user record and auth API is in `auth_service.py`;
credentials of programs and sockets are in `callers.py`.
"""

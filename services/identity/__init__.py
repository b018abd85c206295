"""Authentication: WeCom users, callers of REST and sockets, and the keys that name and seal their data.

Imports `redis`, `sql` and `http`. `auth_service.py` tries the cached token, then the user record and the auth API;
`callers.py` checks the credentials of REST and socket clients.
"""

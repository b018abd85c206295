"""The open sockets of all replicas in Redis: who is connected, which socket is its client's newest."""

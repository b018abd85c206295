"""The open sockets of all replicas in Redis: connected clients, and the newest socket of each.

Entries are renewed every 2 s. A client id that connects again closes its older socket within one principal, on
whatever replica it is; administrators see and close sockets from any replica.
"""

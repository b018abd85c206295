"""Limits of what a connection keeps for a peer that does not read, of HTTP replies and of WebSockets."""

from __future__ import annotations

#: Seconds within which a peer must accept a byte of the data sent to it.
SEND_SECONDS = 30.0
#: SO_SNDBUF in bytes (Linux doubles it). Without it the kernel buffers megabytes for a peer that does not read.
SEND_BUFFER = 128 * 1024

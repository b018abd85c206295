"""A client that uploads files for its questions."""

from __future__ import annotations

from typing import Any

import requests

#: Timeout of a reply in seconds: long, for a busy machine.
WIDE = 60.0


def uploads(url: str, content: bytes, name: str = "a.png", *, key: str = "", address: str = "") -> requests.Response:
    """Return the reply to POST /api/files; `address` is that of the client behind a proxy."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    headers |= {"X-Forwarded-For": address} if address else {}
    return requests.post(f"{url}/api/files", files={"file": (name, content)}, headers=headers, timeout=WIDE)


def uploaded(url: str, content: bytes, name: str = "a.png", *, key: str = "") -> str:
    """Upload a file, and return its id."""
    reply = uploads(url, content, name, key=key)
    assert reply.status_code == 201, reply.text
    data: dict[str, Any] = reply.json()["data"]
    return str(data["file_id"])

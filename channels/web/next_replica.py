"""How a leaving replica has nginx send a new question to another one (`deploy/nginx.conf`).

nginx sends no POST a second time, because the first replica may have acted on it. Only the replica knows that it has
not: it then replies with a header that leads nginx, if that asks for it, to a location for the next replica.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from flask import Request

#: The header by which nginx says that it has such a location.
OFFER = "X-Laibao-Next"
#: nginx sends the request to this location, and drops the reply that has the header.
NEXT: Mapping[str, str] = MappingProxyType({"X-Accel-Redirect": "@next_replica"})
NOTHING: Mapping[str, str] = MappingProxyType({})


def next_replica(asked: Request) -> Mapping[str, str]:
    """Return the headers of a reply that refuses a request on which nothing was done."""
    return NEXT if OFFER in asked.headers else NOTHING

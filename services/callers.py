"""Who may ask at a socket, and as whom their question is put to the provider."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Caller:
    """Who stands at a socket, as its credential says."""

    #: "key:<fingerprint>", "user:<user_code>" or "anonymous".
    principal: str
    #: A user's token, sealed.
    credential: str = field(default="", repr=False)

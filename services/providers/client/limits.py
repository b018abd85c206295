"""The limits of a provider's HTTP client."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """Timeouts in seconds, retries and connections of one provider's client."""

    #: The longest wait for an event or record of an answer, including the first.
    timeout: float = 60.0
    connect_timeout: float = 5.0
    #: Connections that are kept for reuse.
    pool_size: int = 100
    #: Retries of a request; the backoff doubles with each and has jitter.
    retries: int = 2
    backoff: float = 0.5
    #: Time for the last record after an answer's end, and after the end of a failed run.
    end_grace: float = 4.0
    failure_grace: float = 3.0
    #: Time for the server to close a stream whose last record has arrived.
    linger: float = 0.2


LIMITS = ClientLimits()

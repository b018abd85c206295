"""The metrics of the long connection. The label `bot` is a bot's name in the settings."""

from __future__ import annotations

from functools import partial

from prometheus_client import Counter, Gauge

from services.metrics import REGISTRY

_counter = partial(Counter, registry=REGISTRY)

SUBSCRIBED = Gauge(
    "wechatlaibao_long_connection_subscribed",
    "Long connections that are subscribed now; one for each bot in websocket mode.",
    ["bot"],
    multiprocess_mode="livesum",
    registry=REGISTRY,
)
HOLDER_CHANGES = _counter(
    "wechatlaibao_long_connection_holders_total", "Times a replica has taken over a bot's long connection.", ["bot"]
)
EVICTIONS = _counter(
    "wechatlaibao_long_connection_evictions_total",
    "Times another program has taken over a bot's long connection.",
    ["bot"],
)
ARRIVALS_DROPPED = _counter(
    "wechatlaibao_long_connection_dropped_total",
    "Messages and events of long connections dropped because too many were being handled.",
    ["bot"],
)
FRAMES_SKIPPED = _counter(
    "wechatlaibao_long_connection_frames_skipped_total",
    "Frames of growing answers not sent because the one before had no acknowledgement yet.",
    ["bot"],
)
FURTHER_MESSAGES = _counter(
    "wechatlaibao_long_connection_messages_total",
    "Parts of long answers, and answers whose frame was refused, by outcome: sent, failed, unknown, expired.",
    ["bot", "outcome"],
)
LATE_ACKS = _counter(
    "wechatlaibao_long_connection_late_acks_total",
    "Acknowledgements that came after their frame counted as not acknowledged.",
    ["bot"],
)


def begin_bot(bot: str) -> None:
    """Begin the series of a bot at 0: one that starts with its first event hides that event from increase()."""
    for metric in (HOLDER_CHANGES, EVICTIONS, ARRIVALS_DROPPED, FRAMES_SKIPPED, LATE_ACKS):
        metric.labels(bot)
    SUBSCRIBED.labels(bot)

"""All metrics. Label values come from closed sets: no user input, no id, no address.

Under gunicorn every worker writes to files in one folder, because `gunicorn.conf.py` sets `PROMETHEUS_MULTIPROC_DIR`
and calls `services.ops.metrics_files` before this module is imported. Without gunicorn the values live in this process.
"""

from __future__ import annotations

import re
from functools import cache, partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

#: The message types that WeCom documents.
MSGTYPES = ("text", "image", "mixed", "voice", "file", "video", "stream", "event")
#: The events that WeCom documents for a bot with a callback.
EVENTS = ("enter_chat", "template_card_event", "feedback_event")
#: The label of every value that is not in its set.
OTHER = "other"

#: The close codes in use: RFC 6455's and the product's own (docs/websocket.md).
CLOSE_CODES = (1000, 1001, 1003, 1005, 1006, 1007, 1009, 1011, 1012, 4401, 4408, 4409, 4410, 4429)


def close_label(code: int) -> str:
    """Return the label of a close code. Clients may send any of some thousands."""
    return str(code) if code in CLOSE_CODES else OTHER


def currency_label(currency: str) -> str:
    """Return the label of a provider's currency: three capital letters, or `OTHER`."""
    return currency.upper() if len(currency) == 3 and currency.isascii() and currency.isalpha() else OTHER


def event_label(event: str) -> str:
    """Return the label of a callback's event. WeCom may send events that are not documented."""
    return event if event in EVENTS else OTHER


def msgtype_label(msgtype: str) -> str:
    """Return the label of a callback's message type. WeCom may send types that are not documented."""
    return msgtype if msgtype in MSGTYPES else OTHER


# The `_created` series would double the page, and do not exist with several processes.
disable_created_metrics()  # type: ignore[no-untyped-call]

#: A registry of the product's own, so that one process and several show the same names.
REGISTRY = CollectorRegistry()
_counter = partial(Counter, registry=REGISTRY)
_histogram = partial(Histogram, registry=REGISTRY)
#: Gauges that are added up over the living workers, and gauges of which the largest is shown.
_sum = partial(Gauge, multiprocess_mode="livesum", registry=REGISTRY)
_largest = partial(Gauge, multiprocess_mode="livemax", registry=REGISTRY)

#: Upper bounds in seconds. A callback should take milliseconds and may take 2 s; an answer may take 20 minutes.
CALLBACK_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
FIRST_TEXT_BUCKETS = (0.1, 0.2, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0)
STREAM_BUCKETS = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 330.0, 600.0, 1200.0)

TAKEOVERS = _counter(
    "wechatlaibao_takeovers_total",
    "Streams this replica took over from a dead owner (takeover) or from a draining replica (handover).",
    ["kind"],
)
RECOVERIES = _counter(
    "wechatlaibao_recoveries_total",
    "Answers looked up at the provider after the owner or the provider's stream was lost, by result.",
    ["outcome", "reason"],
)
REASKS = _counter(
    "wechatlaibao_reasks_total", "Questions asked again because the provider had no answer to the first request."
)
HANDOVERS = _counter(
    "wechatlaibao_handovers_total", "Unfinished streams that a draining replica released to other replicas."
)
OWNERS_REFUSED = _counter(
    "wechatlaibao_owners_refused_total", "Late writes refused because another owner has the stream."
)
STREAMS_RUNNING = _sum("wechatlaibao_streams_running", "Answers being written now.")
STREAMS_MAX = _sum("wechatlaibao_streams_max", "Answers that may be written at once.")
STREAMS = _counter(
    "wechatlaibao_streams_total",
    "Answers that ended on this replica, by outcome: completed, or an error code.",
    ["channel", "outcome"],
)
STREAM_SECONDS = _histogram(
    "wechatlaibao_stream_seconds",
    "Seconds from a question to the end of its answer.",
    ["channel"],
    buckets=STREAM_BUCKETS,
)
FIRST_TEXT_SECONDS = _histogram(
    "wechatlaibao_first_text_seconds",
    "Seconds from a question to the first text of its answer.",
    ["channel"],
    buckets=FIRST_TEXT_BUCKETS,
)
QUESTIONS_REFUSED = _counter(
    "wechatlaibao_questions_refused_total",
    "Questions answered with a fixed sentence instead of an answer, by the sentence's code.",
    ["code"],
)
WORDS = _counter(
    "wechatlaibao_words_total",
    "Rules of WORDS_FILE that questions and answers met; each rule once a text.",
    ["bot", "action", "place"],
)
QUOTA_REFUSALS = _counter(
    "wechatlaibao_quota_refusals_total",
    "Questions refused by a limit of QUOTAS_FILE, by what the limit is for and what it counts.",
    ["kind", "counts"],
)
RULES_BROKEN = _largest(
    "wechatlaibao_rules_broken",
    "1 while a changed file of rules cannot be read, so that its last good rules stay in force.",
    ["setting"],
)
PROVIDER_CALLS = _counter(
    "wechatlaibao_provider_calls_total",
    "Questions sent to an answer provider, repeated ones included.",
    ["bot", "provider"],
)
TOKENS = _counter(
    "wechatlaibao_tokens_total",
    "Tokens as the provider counted them: prompt, completion, or total if only that is known.",
    ["bot", "provider", "kind"],
)
PRICE = _counter(
    "wechatlaibao_price_total",
    "Price of answers as the provider reports it, by currency.",
    ["bot", "provider", "currency"],
)
SOURCES = _counter(
    "wechatlaibao_sources_total",
    "Documents and pages that providers name as sources of answers.",
    ["bot", "provider"],
)
LATE_ANSWERS = _counter(
    "wechatlaibao_late_answers_total",
    "Messages with what a WeCom frame could not carry, by outcome: sent, refused (host not listed), failed, lost.",
    ["outcome"],
)
MEDIA = _counter(
    "wechatlaibao_media_total",
    "Files of messages by kind (image, file, video) and outcome: taken, uploaded, or the sentence's code.",
    ["kind", "outcome"],
)
FORMS = _counter(
    "wechatlaibao_forms_total",
    "Forms of runs that paused for a person, by what became of them: asked, submitted, unsent, or an error code.",
    ["outcome"],
)
REWRITTEN = _counter("wechatlaibao_streams_rewritten_total", "Streams that Redis lost and their owner wrote again.")
PUSHES = _counter(
    "wechatlaibao_pushes_total",
    "Pushes by outcome: queued; limited, refused (queue full) at first; sent, failed, unknown, expired, cancelled.",
    ["outcome"],
)
CALLBACK_SECONDS = _histogram(
    "wechatlaibao_callback_seconds",
    "Seconds to answer a WeCom callback that passed all checks.",
    ["msgtype"],
    buckets=CALLBACK_BUCKETS,
)
CALLBACKS = _counter(
    "wechatlaibao_callbacks_total",
    "WeCom callbacks that passed all checks, by outcome: a stream's status, or the code of a sentence, event or error.",
    ["msgtype", "outcome"],
)
CALLBACKS_REFUSED = _counter(
    "wechatlaibao_callbacks_refused_total", "Callbacks refused, by the check that failed.", ["check"]
)
COMMANDS = _counter("wechatlaibao_commands_total", "Commands of WeCom users, without redeliveries.", ["command"])
HANDOFFS = _counter(
    "wechatlaibao_handoffs_total",
    "Messages to the group that gets `human` commands, by outcome: posted, refused, failed, full.",
    ["outcome"],
)
ALERTS = _counter(
    "wechatlaibao_alerts_total",
    "Alerts for the operators' group: posted, repeated, below_severity, limited (ALERT_MAX_PER_HOUR), failed.",
    ["outcome"],
)
FEEDBACK = _counter(
    "wechatlaibao_feedback_total",
    "Ratings of answers by people, without repeated ones: like, dislike, withdrawn.",
    ["bot", "rating"],
)
FEEDBACK_REFUSED = _counter(
    "wechatlaibao_feedback_refused_total", "Ratings that changed nothing, by reason.", ["reason"]
)
FEEDBACK_DELIVERED = _counter(
    "wechatlaibao_feedback_delivered_total",
    "Deliveries of ratings to SQL and to the provider, by outcome: done, retried, lost.",
    ["target", "outcome"],
)
FEEDBACK_WAITING = _largest(
    "wechatlaibao_feedback_waiting", "Answers whose ratings wait for delivery, over all replicas, as last seen."
)
SCHEMA_BEHIND = _largest(
    "wechatlaibao_schema_behind", "1 while the SQL tables lack a migration that this version needs, else 0."
)
FEEDBACK_KEPT = _sum("wechatlaibao_feedback_kept", "Ratings that replicas keep in their memory while Redis is away.")
USAGE_STREAMS = _counter(
    "wechatlaibao_usage_streams_total",
    "Ended answers for question log and usage: written, lost (expired before SQL took them), dropped (no room).",
    ["outcome"],
)
USAGE_WAITING = _largest(
    "wechatlaibao_usage_waiting", "Ended answers that wait for the question log and the usage, over all replicas."
)
SPANS = _counter(
    "wechatlaibao_spans_total",
    "Spans and Langfuse scores by outcome: exported, refused by the collector, dropped (the queue was full).",
    ["outcome"],
)
REST_REFUSED = _counter(
    "wechatlaibao_rest_refused_total", "Requests refused because of their Origin or Host header.", ["check"]
)
CREDENTIALS_REFUSED = _counter(
    "wechatlaibao_credentials_refused_total",
    "Credentials refused: wrong, or blocked because their address sent too many wrong ones.",
    ["kind", "outcome"],
)
SOCKETS_OPEN = _sum("wechatlaibao_sockets_open", "Open WebSockets.", ["channel"])
SOCKETS_MAX = _sum("wechatlaibao_sockets_max", "WebSockets that may be open at once.")
SOCKETS_ENDED = _counter(
    "wechatlaibao_sockets_ended_total",
    "WebSockets that ended, by close code; other is a code that only clients use.",
    ["channel", "code"],
)
SOCKETS_REFUSED = _counter(
    "wechatlaibao_sockets_refused_total", "Handshakes refused, by the check that failed.", ["channel", "check"]
)
CONNECTIONS_REFUSED = _counter(
    "wechatlaibao_connections_refused_total",
    "Connections closed because of their client's behaviour, by reason.",
    ["reason"],
)
BODY_BYTES = _sum("wechatlaibao_body_bytes", "Bytes of request bodies in memory, but for the first 64 KiB of each.")
BODY_BYTES_MAX = _sum("wechatlaibao_body_bytes_max", "Bytes of request bodies that may be in memory at once.")
BODIES_REFUSED = _counter(
    "wechatlaibao_bodies_refused_total",
    "Request bodies refused, by the limit: caller or process (bytes), slots (uploads), shape (JSON).",
    ["limit"],
)
HTTP_WAITS = _sum("wechatlaibao_http_waits", "Plain HTTP requests that wait for an answer now.")
HTTP_WAITS_MAX = _sum("wechatlaibao_http_waits_max", "Plain HTTP requests that may wait for an answer at once.")
SEARCHES = _counter(
    "wechatlaibao_searches_total", "Web searches, by outcome: found, empty, failed.", ["provider", "outcome"]
)
SUGGESTIONS = _counter(
    "wechatlaibao_suggestions_total", "Requests for suggested questions, by outcome.", ["provider", "outcome"]
)
BATCH_ITEMS = _counter(
    "wechatlaibao_batch_items_total", "Batch items that ended, by outcome: completed, or an error code.", ["outcome"]
)
BATCH_RETRIES = _counter(
    "wechatlaibao_batch_retries_total", "Batch items scheduled to be asked again, by error code.", ["code"]
)
BATCH_WEBHOOKS = _counter(
    "wechatlaibao_batch_webhooks_total", "Attempts to deliver webhooks of batch tasks, by outcome.", ["outcome"]
)
BATCH_LANES_BUSY = _sum("wechatlaibao_batch_lanes_busy", "Batch items being answered now.")
BATCH_LANES_MAX = _largest(
    "wechatlaibao_batch_lanes_max", "Batch items that may be answered at once, over all replicas."
)
BATCH_TASKS_UNFINISHED = _largest("wechatlaibao_batch_tasks_unfinished", "Unfinished batch tasks, as last counted.")
BATCH_TASKS_MAX = _largest("wechatlaibao_batch_tasks_max", "Batch tasks that may be unfinished at once.")
BATCH_TASKS = _counter("wechatlaibao_batch_tasks_total", "Batch tasks that ended, by status.", ["status"])
BATCH_REFUSED = _counter("wechatlaibao_batch_refused_total", "Batch tasks refused, by error code.", ["code"])
ANSWER_FILES = _counter(
    "wechatlaibao_answer_files_total",
    "Pictures and files of answers, by outcome: picture, file, or the code of what went wrong.",
    ["outcome"],
)
FILE_BYTES = _largest("wechatlaibao_file_bytes", "Bytes of the files in Redis, over all replicas, as last counted.")
FILE_BYTES_MAX = _largest("wechatlaibao_file_bytes_max", "Bytes of the files that Redis may have at once.")
CONTACT_LOOKUPS = _counter(
    "wechatlaibao_contact_lookups_total",
    "Look-ups of a person in WeCom's directory, by outcome, and questions that waited for one in vain.",
    ["outcome"],
)
# Long connections. The label `bot` is a bot's name in the settings.
BOTS_SUBSCRIBED = Gauge(
    "wechatlaibao_long_connection_subscribed",
    "Long connections that are subscribed now; one for each bot in websocket mode.",
    ["bot"],
    multiprocess_mode="livesum",
    registry=REGISTRY,
)
BOT_HOLDER_CHANGES = _counter(
    "wechatlaibao_long_connection_holders_total", "Times a replica has taken over a bot's long connection.", ["bot"]
)
BOT_EVICTIONS = _counter(
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
    "Parts of long answers, and answers whose frame was refused, by outcome: sent, failed, unknown, expired; cut: "
    "answers with more parts than are sent.",
    ["bot", "outcome"],
)
LATE_ACKS = _counter(
    "wechatlaibao_long_connection_late_acks_total",
    "Acknowledgements that came after their frame counted as not acknowledged.",
    ["bot"],
)
REDIS_OUTAGES = _counter("wechatlaibao_redis_outages_total", "Times a replica found Redis unreachable.")
REDIS_AWAY = _largest("wechatlaibao_redis_away", "1 while a replica finds Redis unreachable, else 0.")

# A series that starts with its first event hides that event from increase(), so known series start at 0.
for _kind in ("takeover", "handover"):
    TAKEOVERS.labels(_kind)
for _outcome in ("extended", "replaced", "unchanged", "lost"):
    for _reason in ("owner_lost", "stream_broken"):
        RECOVERIES.labels(_outcome, _reason)
for _target in ("sql", "provider"):
    for _outcome in ("done", "retried", "lost"):
        FEEDBACK_DELIVERED.labels(_target, _outcome)
for _outcome in ("written", "lost", "dropped"):
    USAGE_STREAMS.labels(_outcome)
for _outcome in ("exported", "refused", "dropped"):
    SPANS.labels(_outcome)
for _outcome in ("queued", "limited", "refused", "sent", "failed", "unknown", "expired", "cancelled"):
    PUSHES.labels(_outcome)
for _outcome in ("processing", "completed", "failed", "store_unavailable", "owner_only", "stream_missing"):
    CALLBACKS.labels("stream", _outcome)
for _reason in ("address", "full", "idle", "malformed", "slow", "stalled"):
    CONNECTIONS_REFUSED.labels(_reason)
for _outcome in ("posted", "repeated", "below_severity", "limited", "failed"):
    ALERTS.labels(_outcome)
for _limit in ("caller", "process", "slots"):
    BODIES_REFUSED.labels(_limit)
for _outcome in ("sent", "refused", "failed", "lost"):
    LATE_ANSWERS.labels(_outcome)
for _check in ("bad_signature", "bad_ciphertext", "stale_timestamp"):
    CALLBACKS_REFUSED.labels(_check)
for _code in ("user_full", "turns_full", "replica_full", "rate_limited", "draining", "store_unavailable"):
    QUESTIONS_REFUSED.labels(_code)
for _kind in ("caller", "admin", "alert"):
    for _outcome in ("wrong", "blocked"):
        CREDENTIALS_REFUSED.labels(_kind, _outcome)


def begin_channel(name: str, *, sockets: bool) -> None:
    """Begin the series of a channel at 0; `sockets` tells whether its clients connect by WebSocket."""
    for outcome in ("completed", "provider_error", "provider_unreachable", "provider_timeout"):
        STREAMS.labels(name, outcome)
    if sockets:
        SOCKETS_OPEN.labels(name)


def begin_bot(bot: str) -> None:
    """Begin the series of a bot at 0: one that starts with its first event hides that event from increase()."""
    for metric in (BOT_HOLDER_CHANGES, BOT_EVICTIONS, ARRIVALS_DROPPED, FRAMES_SKIPPED, LATE_ACKS):
        metric.labels(bot)
    BOTS_SUBSCRIBED.labels(bot)


#: Outcomes of answers that are no failure of the product: completed, stopped, or not allowed to the person.
NOT_FAILED = re.compile(
    "completed|cancelled|unknown_user|not_allowed|quota_used|forbidden_words|user_full|turns_full|file_unknown"
    "|files_full|media_too_.*|media_wrong_type|media_unsupported"
)


def ended_answers() -> tuple[int, int]:
    """Return how many answers have ended in this process, and how many of them failed."""
    counts = [(each.labels["outcome"], each.value) for family in STREAMS.collect() for each in family.samples]
    failed = sum(count for outcome, count in counts if not NOT_FAILED.fullmatch(outcome))
    return int(sum(count for _, count in counts)), int(failed)


def render() -> bytes:
    """Return this process's metrics in Prometheus's text format. For several processes see ops/metrics_files."""
    return generate_latest(REGISTRY)


def count_callback(msgtype: str, outcome: str, seconds: float) -> None:
    """Count one callback that passed all checks, and the seconds until its reply."""
    count, duration = _of_callbacks(msgtype_label(msgtype), outcome)
    count.inc()
    duration.observe(seconds)


@cache
def _of_callbacks(label: str, outcome: str) -> tuple[Counter, Histogram]:
    # Cached: looking up a child by its labels takes as long as counting.
    return CALLBACKS.labels(label, outcome), CALLBACK_SECONDS.labels(label)

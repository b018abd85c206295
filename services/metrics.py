"""What is counted and timed, by name. Label values are from closed sets: nothing a person typed, no id, no address.

Under gunicorn every worker writes into files of one folder, because `gunicorn.conf.py` sets `PROMETHEUS_MULTIPROC_DIR`
before this module is imported; everywhere else the values live in this process.
"""

from __future__ import annotations

from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

# The times of creation would be as many lines again, and are not there with several processes anyway.
disable_created_metrics()  # type: ignore[no-untyped-call]

#: Ours alone: the same names with one process and with several.
REGISTRY = CollectorRegistry()

#: The kinds of messages that WeCom documents, and what every other one is counted as.
MSGTYPES = ("text", "image", "mixed", "voice", "file", "video", "stream", "event")
OTHER = "other"

#: The codes sockets are closed with: RFC 6455's and ours (docs/websocket.md).
CLOSE_CODES = (1000, 1001, 1003, 1005, 1006, 1007, 1009, 1011, 1012, 4401, 4408, 4409, 4410, 4429)

#: Upper bounds in seconds: a callback should take milliseconds and may take 2 s, an answer may take 20 minutes.
CALLBACK_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
FIRST_TEXT_BUCKETS = (0.1, 0.2, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0)
STREAM_BUCKETS = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 330.0, 600.0, 1200.0)

TAKEOVERS = Counter(
    "wechatlaibao_takeovers_total",
    "Streams this replica went on with: takeover of a silent owner, handover from a leaving one.",
    ["kind"],
    registry=REGISTRY,
)
RECOVERIES = Counter(
    "wechatlaibao_recoveries_total",
    "Answers looked up at the provider after their owner was lost or their stream broke, by what was found.",
    ["outcome", "reason"],
    registry=REGISTRY,
)
REASKS = Counter(
    "wechatlaibao_reasks_total",
    "Questions asked again, because the provider had no answer to the first time.",
    registry=REGISTRY,
)
HANDOVERS = Counter(
    "wechatlaibao_handovers_total",
    "Streams a leaving replica released before their end, for another one to go on with.",
    registry=REGISTRY,
)
OWNERS_REFUSED = Counter(
    "wechatlaibao_owners_refused_total",
    "Owners that were replaced and whose late writing was refused.",
    registry=REGISTRY,
)
STREAMS_RUNNING = Gauge(
    "wechatlaibao_streams_running",
    "Answers being written now.",
    multiprocess_mode="livesum",
    registry=REGISTRY,
)
STREAMS_MAX = Gauge(
    "wechatlaibao_streams_max",
    "Answers that may be written at once.",
    multiprocess_mode="livesum",
    registry=REGISTRY,
)
STREAMS = Counter(
    "wechatlaibao_streams_total",
    "Answers that ended here: completed, or the code of what went wrong.",
    ["channel", "outcome"],
    registry=REGISTRY,
)
STREAM_SECONDS = Histogram(
    "wechatlaibao_stream_seconds",
    "Seconds from a question to its answer's end.",
    ["channel"],
    buckets=STREAM_BUCKETS,
    registry=REGISTRY,
)
FIRST_TEXT_SECONDS = Histogram(
    "wechatlaibao_first_text_seconds",
    "Seconds from a question to its answer's first text.",
    ["channel"],
    buckets=FIRST_TEXT_BUCKETS,
    registry=REGISTRY,
)
QUESTIONS_REFUSED = Counter(
    "wechatlaibao_questions_refused_total",
    "Questions that got a sentence instead of an answer, by the sentence's code.",
    ["code"],
    registry=REGISTRY,
)
PROVIDER_CALLS = Counter(
    "wechatlaibao_provider_calls_total",
    "Questions sent to an answer provider, again or not.",
    ["bot", "provider"],
    registry=REGISTRY,
)
TOKENS = Counter(
    "wechatlaibao_tokens_total",
    "Tokens of answers as their provider counted them: of the prompt, of the completion, and of a total told alone.",
    ["bot", "provider", "kind"],
    registry=REGISTRY,
)
PRICE = Counter(
    "wechatlaibao_price_total",
    "What answers cost as their provider says it, by currency.",
    ["bot", "provider", "currency"],
    registry=REGISTRY,
)
SOURCES = Counter(
    "wechatlaibao_sources_total",
    "Documents and pages that answers rest on, as their provider names them.",
    ["bot", "provider"],
    registry=REGISTRY,
)
REWRITTEN = Counter(
    "wechatlaibao_streams_rewritten_total",
    "Streams that Redis had lost and their owner wrote again.",
    registry=REGISTRY,
)
CALLBACK_SECONDS = Histogram(
    "wechatlaibao_callback_seconds",
    "Seconds to answer a callback of WeCom that passed its checks.",
    ["msgtype"],
    buckets=CALLBACK_BUCKETS,
    registry=REGISTRY,
)
CALLBACKS_REFUSED = Counter(
    "wechatlaibao_callbacks_refused_total",
    "Callbacks refused, by the check that failed.",
    ["check"],
    registry=REGISTRY,
)
REST_REFUSED = Counter(
    "wechatlaibao_rest_refused_total",
    "Requests refused because of the page's origin, or of the host they name.",
    ["check"],
    registry=REGISTRY,
)
CREDENTIALS_REFUSED = Counter(
    "wechatlaibao_credentials_refused_total",
    "Credentials refused: wrong, or not looked at because their address showed too many wrong ones.",
    ["kind", "outcome"],
    registry=REGISTRY,
)
SOCKETS_OPEN = Gauge(
    "wechatlaibao_sockets_open",
    "Open WebSockets.",
    ["door"],
    multiprocess_mode="livesum",
    registry=REGISTRY,
)
SOCKETS_MAX = Gauge(
    "wechatlaibao_sockets_max",
    "WebSockets that may be open at once.",
    multiprocess_mode="livesum",
    registry=REGISTRY,
)
SOCKETS_ENDED = Counter(
    "wechatlaibao_sockets_ended_total",
    "WebSockets that ended, by close code; other is one that only a client could choose.",
    ["door", "code"],
    registry=REGISTRY,
)
SOCKETS_REFUSED = Counter(
    "wechatlaibao_sockets_refused_total",
    "Handshakes refused, by the check that failed.",
    ["door", "check"],
    registry=REGISTRY,
)
CONNECTIONS_REFUSED = Counter(
    "wechatlaibao_connections_refused_total",
    "Connections closed for what their client did, by the reason.",
    ["reason"],
    registry=REGISTRY,
)
HTTP_WAITS = Gauge(
    "wechatlaibao_http_waits",
    "Requests that wait for an answer over plain HTTP now.",
    multiprocess_mode="livesum",
    registry=REGISTRY,
)
HTTP_WAITS_MAX = Gauge(
    "wechatlaibao_http_waits_max",
    "Requests that may wait for an answer over plain HTTP at once.",
    multiprocess_mode="livesum",
    registry=REGISTRY,
)
SEARCHES = Counter(
    "wechatlaibao_searches_total",
    "Web searches, by what came of them: found, empty, failed.",
    ["provider", "outcome"],
    registry=REGISTRY,
)
BATCH_ITEMS = Counter(
    "wechatlaibao_batch_items_total",
    "Items of batches that ended: completed, or the code of what went wrong.",
    ["outcome"],
    registry=REGISTRY,
)
BATCH_RETRIES = Counter(
    "wechatlaibao_batch_retries_total",
    "Items of batches put back to be asked again, by the code of what went wrong.",
    ["code"],
    registry=REGISTRY,
)
BATCH_LANES_BUSY = Gauge(
    "wechatlaibao_batch_lanes_busy",
    "Items of batches being answered now.",
    multiprocess_mode="livesum",
    registry=REGISTRY,
)
BATCH_LANES_MAX = Gauge(
    "wechatlaibao_batch_lanes_max",
    "Items of batches that may be answered at once, over all replicas.",
    multiprocess_mode="livemax",
    registry=REGISTRY,
)
BATCH_TASKS_UNFINISHED = Gauge(
    "wechatlaibao_batch_tasks_unfinished",
    "Batch tasks that have not ended, as last counted.",
    multiprocess_mode="livemax",
    registry=REGISTRY,
)
BATCH_TASKS_MAX = Gauge(
    "wechatlaibao_batch_tasks_max",
    "Batch tasks that may be unfinished at once.",
    multiprocess_mode="livemax",
    registry=REGISTRY,
)
BATCH_TASKS = Counter(
    "wechatlaibao_batch_tasks_total",
    "Batch tasks that ended, by status.",
    ["status"],
    registry=REGISTRY,
)
BATCH_REFUSED = Counter(
    "wechatlaibao_batch_refused_total",
    "Batch tasks refused, by the code.",
    ["code"],
    registry=REGISTRY,
)
REDIS_OUTAGES = Counter(
    "wechatlaibao_redis_outages_total",
    "Times a replica found Redis away.",
    registry=REGISTRY,
)
REDIS_AWAY = Gauge(
    "wechatlaibao_redis_away",
    "1 while a replica finds Redis away, else 0.",
    multiprocess_mode="livemax",
    registry=REGISTRY,
)

# A series that begins with its first event hides that event from increase(): those known beforehand begin at 0.
for _kind in ("takeover", "handover"):
    TAKEOVERS.labels(_kind)
for _outcome in ("extended", "replaced", "unchanged", "lost"):
    for _reason in ("owner_lost", "stream_broken"):
        RECOVERIES.labels(_outcome, _reason)
for _reason in ("address", "full", "idle", "malformed", "stalled"):
    CONNECTIONS_REFUSED.labels(_reason)


def begin_channel(name: str, *, sockets: bool) -> None:
    """Begin the series of a channel at 0; `sockets` tells whether its clients connect by WebSocket."""
    STREAMS.labels(name, "completed")
    if sockets:
        SOCKETS_OPEN.labels(name)


def render() -> bytes:
    """Return this process's metrics in the text format of Prometheus; with several processes, see metrics_files."""
    return generate_latest(REGISTRY)


def close_label(code: int) -> str:
    """Return a close code as a label: clients may send any of some thousands."""
    return str(code) if code in CLOSE_CODES else OTHER


def currency_label(currency: str) -> str:
    """Return a provider's word for a currency as a label: three letters, or other."""
    return currency.upper() if len(currency) == 3 and currency.isascii() and currency.isalpha() else OTHER


def msgtype_label(msgtype: str) -> str:
    """Return the label of a callback's kind: WeCom may send kinds we do not know, and a label must be a known one."""
    return msgtype if msgtype in MSGTYPES else OTHER


def callback_seconds(msgtype: str) -> Histogram:
    """Return the histogram of one kind of callbacks."""
    return _of_callbacks(msgtype_label(msgtype))


@cache
def _of_callbacks(label: str) -> Histogram:
    # Looking a child up by its label takes as long as counting does.
    return CALLBACK_SECONDS.labels(label)

"""The names of the metrics, and the page that renders them, in one process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from prometheus_client import Gauge
from prometheus_client.parser import text_string_to_metric_families

from services import metrics
from services.metrics import close_label, msgtype_label
from services.ops.metrics_files import FRESH_SECONDS, MetricsPage, MetricsUnavailable
from tests.support.servers.processes import FakeClock, wait_until

#: The names are public: dashboards, alerts and autoscalers use them.
NAMES = {
    "wechatlaibao_takeovers_total": ("counter", {"kind"}),
    "wechatlaibao_recoveries_total": ("counter", {"outcome", "reason"}),
    "wechatlaibao_reasks_total": ("counter", set()),
    "wechatlaibao_handovers_total": ("counter", set()),
    "wechatlaibao_owners_refused_total": ("counter", set()),
    "wechatlaibao_streams_running": ("gauge", set()),
    "wechatlaibao_streams_max": ("gauge", set()),
    "wechatlaibao_streams_total": ("counter", {"channel", "outcome"}),
    "wechatlaibao_stream_seconds": ("histogram", {"channel"}),
    "wechatlaibao_first_text_seconds": ("histogram", {"channel"}),
    "wechatlaibao_questions_refused_total": ("counter", {"code"}),
    "wechatlaibao_provider_calls_total": ("counter", {"bot", "provider"}),
    "wechatlaibao_tokens_total": ("counter", {"bot", "provider", "kind"}),
    "wechatlaibao_price_total": ("counter", {"bot", "provider", "currency"}),
    "wechatlaibao_sources_total": ("counter", {"bot", "provider"}),
    "wechatlaibao_late_answers_total": ("counter", {"outcome"}),
    "wechatlaibao_media_total": ("counter", {"kind", "outcome"}),
    "wechatlaibao_pushes_total": ("counter", {"outcome"}),
    "wechatlaibao_forms_total": ("counter", {"outcome"}),
    "wechatlaibao_streams_rewritten_total": ("counter", set()),
    "wechatlaibao_callback_seconds": ("histogram", {"msgtype"}),
    "wechatlaibao_callbacks_total": ("counter", {"msgtype", "outcome"}),
    "wechatlaibao_callbacks_refused_total": ("counter", {"check"}),
    "wechatlaibao_rest_refused_total": ("counter", {"check"}),
    "wechatlaibao_commands_total": ("counter", {"command"}),
    "wechatlaibao_alerts_total": ("counter", {"outcome"}),
    "wechatlaibao_handoffs_total": ("counter", {"outcome"}),
    "wechatlaibao_feedback_total": ("counter", {"bot", "rating"}),
    "wechatlaibao_feedback_refused_total": ("counter", {"reason"}),
    "wechatlaibao_feedback_delivered_total": ("counter", {"target", "outcome"}),
    "wechatlaibao_feedback_kept": ("gauge", set()),
    "wechatlaibao_usage_streams_total": ("counter", {"outcome"}),
    "wechatlaibao_spans_total": ("counter", {"outcome"}),
    "wechatlaibao_usage_waiting": ("gauge", set()),
    "wechatlaibao_quota_refusals_total": ("counter", {"kind", "counts"}),
    "wechatlaibao_rules_broken": ("gauge", {"setting"}),
    "wechatlaibao_words_total": ("counter", {"action", "place", "bot"}),
    "wechatlaibao_schema_behind": ("gauge", set()),
    "wechatlaibao_feedback_waiting": ("gauge", set()),
    "wechatlaibao_file_bytes": ("gauge", set()),
    "wechatlaibao_file_bytes_max": ("gauge", set()),
    "wechatlaibao_credentials_refused_total": ("counter", {"kind", "outcome"}),
    "wechatlaibao_sockets_open": ("gauge", {"channel"}),
    "wechatlaibao_sockets_max": ("gauge", set()),
    "wechatlaibao_sockets_ended_total": ("counter", {"channel", "code"}),
    "wechatlaibao_sockets_refused_total": ("counter", {"channel", "check"}),
    "wechatlaibao_connections_refused_total": ("counter", {"reason"}),
    "wechatlaibao_answer_files_total": ("counter", {"outcome"}),
    "wechatlaibao_redis_outages_total": ("counter", set()),
    "wechatlaibao_body_bytes": ("gauge", set()),
    "wechatlaibao_body_bytes_max": ("gauge", set()),
    "wechatlaibao_bodies_refused_total": ("counter", {"limit"}),
    "wechatlaibao_http_waits": ("gauge", set()),
    "wechatlaibao_http_waits_max": ("gauge", set()),
    "wechatlaibao_searches_total": ("counter", {"provider", "outcome"}),
    "wechatlaibao_suggestions_total": ("counter", {"provider", "outcome"}),
    "wechatlaibao_batch_items_total": ("counter", {"outcome"}),
    "wechatlaibao_batch_retries_total": ("counter", {"code"}),
    "wechatlaibao_batch_webhooks_total": ("counter", {"outcome"}),
    "wechatlaibao_batch_lanes_busy": ("gauge", set()),
    "wechatlaibao_batch_lanes_max": ("gauge", set()),
    "wechatlaibao_batch_tasks_unfinished": ("gauge", set()),
    "wechatlaibao_batch_tasks_max": ("gauge", set()),
    "wechatlaibao_batch_tasks_total": ("counter", {"status"}),
    "wechatlaibao_batch_refused_total": ("counter", {"code"}),
    "wechatlaibao_contact_lookups_total": ("counter", {"outcome"}),
    "wechatlaibao_long_connection_subscribed": ("gauge", {"bot"}),
    "wechatlaibao_long_connection_holders_total": ("counter", {"bot"}),
    "wechatlaibao_long_connection_evictions_total": ("counter", {"bot"}),
    "wechatlaibao_long_connection_dropped_total": ("counter", {"bot"}),
    "wechatlaibao_long_connection_late_acks_total": ("counter", {"bot"}),
    "wechatlaibao_long_connection_frames_skipped_total": ("counter", {"bot"}),
    "wechatlaibao_long_connection_messages_total": ("counter", {"bot", "outcome"}),
    "wechatlaibao_redis_away": ("gauge", set()),
}  # fmt: skip


def public_name(name: str, kind: str) -> str:
    return f"{name}_total" if kind == "counter" else name


def test_the_metrics_are_the_documented_ones() -> None:
    """Each metric has its documented name, type and labels, and there are no others."""
    collected = {public_name(family.name, family.type): family.type for family in metrics.REGISTRY.collect()}
    members = vars(metrics)
    ours = [value for name, value in members.items() if name.isupper() and hasattr(value, "_labelnames")]
    labels = {public_name(metric._name, metric._type): set(metric._labelnames) for metric in ours}

    assert {name: (kind, labels[name]) for name, kind in collected.items()} == NAMES


def test_prometheus_can_parse_the_text() -> None:
    """Every family can be parsed, and has its type and one line of help."""
    families = {
        public_name(family.name, family.type): family
        for family in text_string_to_metric_families(metrics.render().decode())
    }

    assert {name: family.type for name, family in families.items()} == {n: kind for n, (kind, _) in NAMES.items()}
    for family in families.values():
        assert family.documentation.endswith(".")
        assert "\n" not in family.documentation


def test_gauges_are_dropped_with_their_process() -> None:
    """In another mode a gauge would show a dead worker's value, or keep its file, for ever."""
    gauges = [metric for metric in vars(metrics).values() if isinstance(metric, Gauge)]

    assert len(gauges) == 21
    assert all(gauge._multiprocess_mode in ("livesum", "livemax") for gauge in gauges)


def test_the_first_event_of_an_alert_is_an_increase() -> None:
    """The series of what alerts and dashboards count exist before their first event, which increase() would miss."""
    metrics.begin_channel("begun", sockets=False)

    for name, labels in {
        "streams_total": {"channel": "begun", "outcome": "provider_error"},
        "late_answers_total": {"outcome": "failed"},
        "callbacks_refused_total": {"check": "bad_signature"},
        "questions_refused_total": {"code": "replica_full"},
        "credentials_refused_total": {"kind": "admin", "outcome": "wrong"},
    }.items():
        assert metrics.REGISTRY.get_sample_value(f"wechatlaibao_{name}", labels) is not None, name


def test_unknown_values_have_the_label_other() -> None:
    """Values from outside, a msgtype or a client's close code, cannot create new series without limit."""
    assert [msgtype_label(msgtype) for msgtype in ("text", "stream", "sticker", "")] == [
        "text",
        "stream",
        "other",
        "other",
    ]
    assert [close_label(code) for code in (1000, 4409, 3999, 4000)] == ["1000", "4409", "other", "other"]


class Renderer:
    """A renderer that blocks until `may_end` is set, and counts its calls."""

    def __init__(self) -> None:
        self.calls = 0
        self.may_end = threading.Event()
        self.error: Exception | None = None

    def __call__(self) -> bytes:
        self.calls += 1
        assert self.may_end.wait(20)
        if self.error:
            raise self.error
        return b"text %d" % self.calls


@pytest.fixture
def renderer() -> Iterator[Renderer]:
    renderer = Renderer()
    yield renderer
    renderer.may_end.set()


def test_parallel_scrapes_share_one_rendering(renderer: Renderer, clock: FakeClock) -> None:
    """Scrapes that come during a rendering wait for it and get the same text."""
    page = MetricsPage(renderer, clock=clock)

    with ThreadPoolExecutor(5) as pool:
        scrapes = [pool.submit(page.text) for _ in range(5)]
        wait_until(lambda: renderer.calls)
        renderer.may_end.set()

        assert [scrape.result(20) for scrape in scrapes] == [b"text 1"] * 5


def test_a_text_is_kept_for_a_second(renderer: Renderer, clock: FakeClock) -> None:
    """The next scrape after FRESH_SECONDS renders again."""
    page = MetricsPage(renderer, clock=clock)
    renderer.may_end.set()

    first = page.text()
    clock.advance(FRESH_SECONDS / 2)
    second = page.text()
    clock.advance(FRESH_SECONDS / 2)
    third = page.text()

    assert (first, second, third) == (b"text 1", b"text 1", b"text 2")


def test_a_failed_rendering_is_kept_for_a_second(renderer: Renderer, clock: FakeClock) -> None:
    """Scrapes within FRESH_SECONDS get the same error without another attempt; an old text is never shown."""
    page = MetricsPage(renderer, clock=clock)
    renderer.may_end.set()
    page.text()

    clock.advance(FRESH_SECONDS)
    renderer.error = MetricsUnavailable("too slow")
    for _ in range(3):
        with pytest.raises(MetricsUnavailable):
            page.text()
    assert renderer.calls == 2

    renderer.error = None
    clock.advance(FRESH_SECONDS)
    assert page.text() == b"text 3"

"""The metrics by name, and the page that shows them, in one process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from prometheus_client import Gauge
from prometheus_client.parser import text_string_to_metric_families

from services import metrics
from services.ops.metrics_files import MetricsUnavailable
from services.ops.metrics_page import FRESH_SECONDS, MetricsPage
from tests.support.servers.processes import FakeClock, wait_until
from utils.metric_labels import close_label, msgtype_label

#: Names are public: dashboards, alerts and the autoscaler use them.
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
    "wechatlaibao_streams_rewritten_total": ("counter", set()),
    "wechatlaibao_callback_seconds": ("histogram", {"msgtype"}),
    "wechatlaibao_callbacks_refused_total": ("counter", {"check"}),
    "wechatlaibao_rest_refused_total": ("counter", {"check"}),
    "wechatlaibao_credentials_refused_total": ("counter", {"kind", "outcome"}),
    "wechatlaibao_sockets_open": ("gauge", {"door"}),
    "wechatlaibao_sockets_max": ("gauge", set()),
    "wechatlaibao_sockets_ended_total": ("counter", {"door", "code"}),
    "wechatlaibao_sockets_refused_total": ("counter", {"door", "check"}),
    "wechatlaibao_connections_refused_total": ("counter", {"reason"}),
    "wechatlaibao_redis_outages_total": ("counter", set()),
    "wechatlaibao_http_waits": ("gauge", set()),
    "wechatlaibao_http_waits_max": ("gauge", set()),
    "wechatlaibao_searches_total": ("counter", {"provider", "outcome"}),
    "wechatlaibao_batch_items_total": ("counter", {"outcome"}),
    "wechatlaibao_batch_retries_total": ("counter", {"code"}),
    "wechatlaibao_batch_lanes_busy": ("gauge", set()),
    "wechatlaibao_batch_lanes_max": ("gauge", set()),
    "wechatlaibao_batch_tasks_unfinished": ("gauge", set()),
    "wechatlaibao_batch_tasks_max": ("gauge", set()),
    "wechatlaibao_batch_tasks_total": ("counter", {"status"}),
    "wechatlaibao_batch_refused_total": ("counter", {"code"}),
    "wechatlaibao_redis_away": ("gauge", set()),
}  # fmt: skip


def public_name(name: str, kind: str) -> str:
    return f"{name}_total" if kind == "counter" else name


def test_the_names_are_the_public_ones() -> None:
    """Each metric has the name, the kind and the labels that others build on, and none is there beside them."""
    collected = {public_name(family.name, family.type): family.type for family in metrics.REGISTRY.collect()}
    ours = [value for name, value in vars(metrics).items() if name.isupper() and hasattr(value, "_labelnames")]
    labels = {public_name(metric._name, metric._type): set(metric._labelnames) for metric in ours}

    assert {name: (kind, labels[name]) for name, kind in collected.items()} == NAMES


def test_the_text_is_what_prometheus_reads() -> None:
    """Every family parses, with its kind and one line of help."""
    families = {
        public_name(family.name, family.type): family
        for family in text_string_to_metric_families(metrics.render().decode())
    }

    assert {name: family.type for name, family in families.items()} == {n: kind for n, (kind, _) in NAMES.items()}
    for family in families.values():
        assert family.documentation.endswith(".")
        assert "\n" not in family.documentation


def test_a_gauge_ends_with_its_process() -> None:
    """A gauge of another mode would show a dead worker's value, or a file of it, for ever."""
    gauges = [metric for metric in vars(metrics).values() if isinstance(metric, Gauge)]

    assert len(gauges) == 11
    assert all(gauge._multiprocess_mode in ("livesum", "livemax") for gauge in gauges)


@pytest.mark.parametrize(
    ("msgtype", "label"), [("text", "text"), ("stream", "stream"), ("sticker", "other"), ("", "other")]
)
def test_a_kind_of_message_nobody_knows_is_no_label(msgtype: str, label: str) -> None:
    """What comes from outside cannot make series without end."""
    assert msgtype_label(msgtype) == label


@pytest.mark.parametrize(("code", "label"), [(1000, "1000"), (4409, "4409"), (3999, "other"), (4000, "other")])
def test_a_close_code_nobody_knows_is_no_label(code: int, label: str) -> None:
    """A client may close with any of thousands."""
    assert close_label(code) == label


class Renderer:
    """A rendering that takes as long as the test wants, and counts."""

    def __init__(self) -> None:
        self.begun = 0
        self.may_end = threading.Event()
        self.error: Exception | None = None

    def __call__(self) -> bytes:
        self.begun += 1
        assert self.may_end.wait(20)
        if self.error:
            raise self.error
        return b"text %d" % self.begun


@pytest.fixture
def renderer() -> Iterator[Renderer]:
    renderer = Renderer()
    yield renderer
    renderer.may_end.set()


def test_scrapes_at_the_same_time_cost_one_rendering(renderer: Renderer, clock: FakeClock) -> None:
    """Who comes while one renders waits for it and gets the same."""
    page = MetricsPage(renderer, clock=clock)

    with ThreadPoolExecutor(5) as pool:
        scrapes = [pool.submit(page.text) for _ in range(5)]
        wait_until(lambda: renderer.begun)
        renderer.may_end.set()

        assert [scrape.result(20) for scrape in scrapes] == [b"text 1"] * 5


def test_a_text_is_good_for_a_second(renderer: Renderer, clock: FakeClock) -> None:
    """After that it is rendered anew, at the next scrape."""
    page = MetricsPage(renderer, clock=clock)
    renderer.may_end.set()

    first = page.text()
    clock.advance(FRESH_SECONDS / 2)
    second = page.text()
    clock.advance(FRESH_SECONDS / 2)
    third = page.text()

    assert (first, second, third) == (b"text 1", b"text 1", b"text 2")


def test_a_failure_is_everybodys_for_a_second(renderer: Renderer, clock: FakeClock) -> None:
    """Those who waited for it do not try it one after another; a later scrape does, and never shows an old text."""
    page = MetricsPage(renderer, clock=clock)
    renderer.may_end.set()
    page.text()

    clock.advance(FRESH_SECONDS)
    renderer.error = MetricsUnavailable("too slow")
    for _ in range(3):
        with pytest.raises(MetricsUnavailable):
            page.text()
    assert renderer.begun == 2

    renderer.error = None
    clock.advance(FRESH_SECONDS)
    assert page.text() == b"text 3"

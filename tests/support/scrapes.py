"""Read a replica's metrics as Prometheus does."""

from __future__ import annotations

import requests
from prometheus_client.parser import text_string_to_metric_families

from tests.support.replicas import ADMIN_TOKEN

Samples = dict[tuple[str, ...], float]


def samples(text: str) -> Samples:
    """Return the samples of a scrape's text by name and label values."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def ask_metrics(url: str) -> requests.Response:
    """Request a replica's metrics with the tests' `ADMIN_TOKEN`, and return the response."""
    return requests.get(f"{url}/metrics", headers={"Authorization": f"Bearer {ADMIN_TOKEN}"}, timeout=60)


def scrape(url: str) -> str:
    """Return the text of a replica's metrics; the values may be up to a second old."""
    reply = ask_metrics(url)
    reply.raise_for_status()
    return reply.text

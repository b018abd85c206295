"""A scrape as Prometheus sees it."""

from __future__ import annotations

import requests
from prometheus_client.parser import text_string_to_metric_families

from tests.support.replicas import ADMIN_TOKEN

Samples = dict[tuple[str, ...], float]


def samples(text: str) -> Samples:
    """Return every sample of the text by its name and label values."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def ask_metrics(url: str) -> requests.Response:
    """Return the answer of a replica's address to whoever has the tests' `ADMIN_TOKEN`."""
    return requests.get(f"{url}/metrics", headers={"Authorization": f"Bearer {ADMIN_TOKEN}"}, timeout=60)


def scrape(url: str) -> str:
    """Return what is shown at a replica's address now, or up to a second ago."""
    reply = ask_metrics(url)
    reply.raise_for_status()
    return reply.text

"""A scrape as Prometheus sees it."""

from __future__ import annotations

import requests
from prometheus_client.parser import text_string_to_metric_families

Samples = dict[tuple[str, ...], float]


def samples(text: str) -> Samples:
    """Return every sample of the text by its name and label values."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def scrape(url: str) -> str:
    """Return what is shown at a replica's address now, or up to a second ago."""
    reply = requests.get(f"{url}/metrics", timeout=30)
    reply.raise_for_status()
    return reply.text

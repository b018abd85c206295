"""The digest of a submission: what two submissions under one idempotency key must have in common."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from services.batches.records import BatchOptions, Given


def digest_of(
    name: str, description: str, options: BatchOptions, texts: Sequence[str], given: Sequence[Given] = ()
) -> str:
    """Return the digest as hexadecimal digits; `given` is empty, or has an entry for each text."""
    digest = hashlib.sha256()
    parts = [name, description, _json(asdict(options))]
    for part in (*parts, *texts, *(_json(one.to_json()) for one in given)):
        written = part.encode("utf-8", "surrogatepass")
        digest.update(len(written).to_bytes(8, "big") + written)
    return digest.hexdigest()


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True)

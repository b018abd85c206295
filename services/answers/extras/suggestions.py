"""The questions that an app suggests after an answer, as they are stored: a few plain lines."""

from __future__ import annotations

import logging

from services import metrics
from services.errors import ProviderError
from services.models import ProviderIds, Query
from services.providers.base import BaseRAGProvider
from utils.deadline import Deadline
from utils.markdown.plain import plain_line

log = logging.getLogger(__name__)

#: Suggestions that are kept of an answer, and the characters of each.
MAX_SUGGESTIONS = 3
SUGGESTION_CHARACTERS = 100
#: Seconds by which an answer's end is delayed at most.
SUGGESTION_SECONDS = 2.0


def suggested_lines(
    provider: BaseRAGProvider, query: Query, ids: ProviderIds, deadline: Deadline, seconds: float = SUGGESTION_SECONDS
) -> str:
    """Return the suggestions after the answer with these ids, one per line; "" for none, and where it fails."""
    if provider.suggest is None or deadline.over:
        return ""
    bounded = Deadline(min(seconds, deadline.remaining()))
    try:
        with deadline.interrupting(lambda: bounded.abort(deadline.aborted)):
            found = provider.suggest(query, ids, bounded)
    except ProviderError as exc:
        # The answer is complete without them.
        log.info("no suggestions", extra={"provider": provider.name, "code": exc.code, "cause": str(exc)})
        metrics.SUGGESTIONS.labels(provider.name, "failed").inc()
        return ""
    except Exception:  # a plug-in may raise any exception
        log.exception("no suggestions", extra={"provider": provider.name})
        metrics.SUGGESTIONS.labels(provider.name, "failed").inc()
        return ""
    lines = dict.fromkeys(line for each in found if (line := plain_line(each, SUGGESTION_CHARACTERS)))
    metrics.SUGGESTIONS.labels(provider.name, "found" if lines else "none").inc()
    return "\n".join(list(lines)[:MAX_SUGGESTIONS])

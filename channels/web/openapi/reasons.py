"""The words of `data.reason`, which tell programs why a request failed, with the HTTP status of each."""

from __future__ import annotations

from collections.abc import Mapping

from channels.web.errors import STATUS, status_of_code
from config.texts import ANSWER_CODES

#: Reasons of requests that are refused before a question is asked, and of batches, pushes and rules.
OF_REQUESTS: Mapping[str, int] = {
    "invalid_json": 400,
    "broken_body": 400,
    "broken_form": 400,
    "host": 400,
    "origin": 403,
    "batch_unknown": 404,
    "push_unknown": 404,
    "push_bot_unknown": 404,
    "version_unknown": 404,
    "batch_finished": 409,
    "batch_unfinished": 409,
    "batch_nothing_failed": 409,
    "batch_conflict": 409,
    "no_questions": 409,
    "rules_changed": 409,
    "rules_elsewhere": 409,
    "too_large": 413,
    "not_json": 415,
    "unsupported_file": 415,
    "invalid_fields": 422,
    "page_too_large": 422,
    "bad_encoding": 422,
    "file_too_complex": 422,
    "id_too_long": 422,
    "no_such_column": 422,
    "no_such_sheet": 422,
    "no_texts": 422,
    "row_too_long": 422,
    "rules_broken": 422,
    "text_too_long": 422,
    "too_many_texts": 422,
    "unclear_column": 422,
    "unreadable_file": 422,
    "webhook_not_allowed": 422,
    "webhook_unsigned": 422,
    "batch_queue_full": 429,
    "bodies_full": 503,
    "busy": 503,
    "batch_unavailable": 503,
}
#: All reasons by HTTP status and name.
REASONS: Mapping[str, int] = dict(
    sorted(
        {**{code: status_of_code(code) for code in ANSWER_CODES}, **STATUS, **OF_REQUESTS}.items(),
        key=lambda each: (each[1], each[0]),
    )
)


def reasons_text() -> str:
    """Return the reasons as a Markdown list, one line for each status."""
    by_status: dict[int, list[str]] = {}
    for word, status in REASONS.items():
        by_status.setdefault(status, []).append(f"`{word}`")
    return "\n".join(f"- {status}: {', '.join(words)}" for status, words in by_status.items())

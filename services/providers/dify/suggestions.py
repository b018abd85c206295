"""Dify's suggested questions after an answer. Apps without that feature are not asked again for a while."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from services.errors import ProviderError
from services.models import ProviderIds, Query
from services.providers.client.json_fields import text
from services.providers.dify.service import DifyService
from utils.deadline import Deadline

log = logging.getLogger(__name__)

#: Seconds for which an app counts as one without suggestions, because it said so.
WITHOUT_SECONDS = 600.0
#: Replies of an app without suggestions: the feature is off (400, in newer versions 403), or Dify does not know it.
WITHOUT = (400, 403, 404)


class SuggestedQuestions:
    """Fetches the suggestions of one app. Thread-safe."""

    def __init__(
        self,
        service: DifyService,
        *,
        authorization: Callable[[str], str],
        user: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`authorization` returns the header for a user's token; `user` is sent for questions without a person."""
        self._service = service
        self._authorization = authorization
        self._user = user
        self._clock = clock
        self._asks_from = -float("inf")

    def after(self, query: Query, ids: ProviderIds, deadline: Deadline) -> Sequence[str]:
        """Return the questions that the app suggests after an answer; none where it does not suggest any.

        Raises:
            ProviderError: Dify did not answer, or not before the deadline.
        """
        if not ids.message_id or self._clock() < self._asks_from:
            return ()
        authorization = self._authorization(query.identity.token)
        try:
            found = self._service.suggested(
                ids.message_id, query.user or self._user, authorization=authorization, deadline=deadline
            )
        except ProviderError as exc:
            if exc.http_status not in WITHOUT:
                raise
            self._asks_from = self._clock() + WITHOUT_SECONDS
            log.info("the app suggests no questions", extra={"status": exc.http_status, "seconds": WITHOUT_SECONDS})
            return ()
        return [question for each in found if (question := text(each))]

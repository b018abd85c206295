"""The questions that a Dify app suggests: in its opening, before the first question, and after an answer."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from services.errors import ProviderError
from services.models import ProviderIds, Query
from services.providers.base import Opening
from services.providers.client.json_fields import text
from services.providers.dify.service import DifyService
from utils.deadline import Deadline

log = logging.getLogger(__name__)

#: Seconds without requests after a reply that the app has no suggestions.
WITHOUT_SECONDS = 600.0
#: Replies of an app without suggestions: the feature is off (400, in newer versions 403), or Dify does not know it.
WITHOUT = (400, 403, 404)


def read_opening(service: DifyService, authorization: str) -> Opening:
    """Return an app's opening statement and its first questions; members of another type than documented are skipped.

    Raises:
        ProviderError: Dify did not answer, or the app is not published.
    """
    parameters = service.parameters(authorization=authorization)
    questions = parameters.get("suggested_questions")
    listed = map(text, questions if isinstance(questions, list) else ())
    return Opening(text(parameters.get("opening_statement")), tuple(filter(None, listed)))


class SuggestedQuestions:
    """Fetches the suggestions of one app. After a reply that it has none, it sends no request for a while."""

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
        self._available_from = -float("inf")

    def after(self, query: Query, ids: ProviderIds, deadline: Deadline) -> Sequence[str]:
        """Return the questions that the app suggests after an answer; none where it does not suggest any.

        Raises:
            ProviderError: Dify did not answer, or not before the deadline.
        """
        if not ids.message_id or self._clock() < self._available_from:
            return ()
        authorization = self._authorization(query.identity.token)
        try:
            found = self._service.suggested(
                ids.message_id, query.user or self._user, authorization=authorization, deadline=deadline
            )
        except ProviderError as exc:
            if exc.http_status not in WITHOUT:
                raise
            self._available_from = self._clock() + WITHOUT_SECONDS
            log.info("the app suggests no questions", extra={"status": exc.http_status, "seconds": WITHOUT_SECONDS})
            return ()
        return [question for each in found if (question := text(each))]

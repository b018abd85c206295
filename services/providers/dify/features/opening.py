"""What a Dify app says before the first question: its opening statement, and the questions to begin with."""

from __future__ import annotations

from services.providers.base import Opening
from services.providers.client.json_fields import text
from services.providers.dify.service import DifyService


class AppOpening:
    """Reads the opening of one app. Thread-safe."""

    def __init__(self, service: DifyService, authorization: str) -> None:
        self._service = service
        self._authorization = authorization

    def read(self) -> Opening:
        """Return the app's opening; members of another type than documented are skipped.

        Raises:
            ProviderError: Dify did not answer, or the app is not published.
        """
        parameters = self._service.parameters(authorization=self._authorization)
        questions = parameters.get("suggested_questions")
        listed = map(text, questions if isinstance(questions, list) else ())
        return Opening(text(parameters.get("opening_statement")), tuple(filter(None, listed)))

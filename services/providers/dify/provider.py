"""Dify as an answer provider: turns a `Query` into a request, and Dify's event stream into provider events."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from services.attachments import MediaFile
from services.errors import ConversationGone, ProviderError, Unrecoverable
from services.models import Complete, ProviderEvent, ProviderIds, Query, Usage
from services.providers.base import BaseRAGProvider, Opening, Recovered
from services.providers.client.inputs import InputsTemplate
from services.providers.client.json_fields import text
from services.providers.client.limits import LIMITS, ClientLimits
from services.providers.dify.answer import DifyAnswer
from services.providers.dify.errors import as_break
from services.providers.dify.forms import DifyForms
from services.providers.dify.recovery import DifyRecovery, SentQuestion
from services.providers.dify.service import DifyService, DifyUrls
from services.providers.dify.stream import ChatStream
from services.providers.recovery import RECOVERY_TIMEOUTS, RecoveryTimeouts
from utils.deadline import Deadline
from utils.running_time import running_time

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


AuthMode = Literal["app_key", "user_token"]


@dataclass(frozen=True, slots=True)
class DifyCredential:
    """The Authorization header of an app."""

    #: The first key is sent; in the mode `user_token` it is the bot code that precedes the user's token. The last key
    #: names the app in Redis, so that a new first key of the same app keeps its conversations.
    api_keys: Sequence[str] = field(repr=False)
    mode: AuthMode = "app_key"
    prefix: str = "Bearer"

    @property
    def code(self) -> str:
        return next((key for key in self.api_keys if key), "")

    @property
    def name(self) -> str:
        return next((key for key in reversed(self.api_keys) if key), "")

    @property
    def own(self) -> str:
        """The header of requests for no user."""
        return _joined(self.prefix, self.code)

    def of_user(self, token: str) -> str:
        """Return the header of requests for the user with this token; only the mode `user_token` needs one.

        Raises:
            ProviderError: the token is missing.
        """
        if self.mode == "app_key":
            return self.own
        if not token:
            raise ProviderError("no token of this user to send", code="provider_unauthorized")
        return _joined(self.prefix, self.code, token)


class DifyProvider(BaseRAGProvider):
    """Streams from any of Dify's chat apps: chat, agent, chatflow, New Agent."""

    name = "dify"
    takes_files = "upload"
    takes_ratings = True

    def __init__(
        self,
        urls: DifyUrls,
        credential: DifyCredential,
        *,
        inputs: InputsTemplate,
        user: str = "",
        limits: ClientLimits = LIMITS,
        max_concurrent: int = 0,
        timeouts: RecoveryTimeouts = RECOVERY_TIMEOUTS,
        clock: Callable[[], float] = running_time,
    ) -> None:
        """Configure the app's URLs, key and limits. Does not connect.

        `inputs` is the template of every question's inputs. `user` is sent for questions without a person.
        `max_concurrent` limits the chats in flight; 0 means no limit. `timeouts` limits a recovery.
        """
        self._credential = credential
        self.sends_user_tokens = credential.mode == "user_token"
        self._user = user
        self._inputs = inputs
        self._limits = limits
        self._timeouts = timeouts
        self._mode = ""
        self._service = DifyService(urls, limits=limits, max_concurrent=max_concurrent, clock=clock)
        self.files_root = urls.root.removesuffix("/v1")
        self.suggest = SuggestedQuestions(self._service, authorization=credential.of_user, user=user).after
        self.forms = DifyForms(self._service, authorization=credential.of_user, user=user, timeouts=timeouts)
        self.app = hashlib.sha256(f"{urls.root}\n{credential.name}".encode()).hexdigest()[:12]

    def opening(self) -> Opening:
        return read_opening(self._service, self._credential.own)

    def stream_query(self, query: Query, deadline: Deadline) -> Iterator[ProviderEvent]:
        """Ask Dify and yield the answer's events as they arrive.

        A conversation counts as gone if Dify reports it, and also if the request named it and only pings arrived within
        `timeout`: chatflows of Dify 1.13 to 1.15 answer an unknown conversation like that. The second rule applies to
        chatflows only; the app's mode is requested only in this case, and an unknown mode counts as a chatflow.

        Raises:
            ConversationGone: only ids were yielded; the caller sends the question again without the conversation.
            StreamBroken: the stream broke off; `recover` may find the answer.
            ProviderError: any other failure; `interrupted` after `deadline.abort`, `answer_timeout` when the deadline
                has passed.
        """
        answer = DifyAnswer()
        try:
            yield from self._ask(query, deadline, answer)
        except ProviderError as exc:
            if exc.code != "interrupted":
                log.warning("[Dify RAG Error] %s: %s", exc.code, exc)
            raise
        log.info("[Dify RAG] Tokens: %s, Price: %s %s", *_cost(answer.usage))

    def _ask(self, query: Query, deadline: Deadline, answer: DifyAnswer) -> Iterator[ProviderEvent]:
        only_pings = False
        authorization = self._credential.of_user(query.identity.token)
        try:
            with self._service.chat_messages(
                self._body(query), authorization=authorization, deadline=deadline
            ) as stream:
                try:
                    yield from self._events(stream, answer)
                finally:
                    only_pings = stream.pings > 0 and not stream.began
        except ProviderError as exc:
            # The response is closed here, before the question is sent again: two runs of it must not overlap.
            if exc.code != "provider_timeout" or not only_pings or not query.conversation_id or not self._is_chatflow():
                raise as_break(exc, running=answer.state == "running") from exc.__cause__
            raise ConversationGone("nothing but pings for a named conversation") from exc

    def _events(self, stream: ChatStream, answer: DifyAnswer) -> Iterator[ProviderEvent]:
        for event in stream:
            yield from answer.take(event)
            if answer.state == "done":
                break
            if answer.state != "running":
                stream.end_within(self._limits.end_grace if answer.state == "finishing" else self._limits.failure_grace)
        yield from answer.close()
        yield Complete()
        if answer.state == "done":
            stream.drain(self._limits.linger)

    def _body(self, query: Query) -> dict[str, Any]:
        body: dict[str, Any] = {
            "query": query.text,
            "inputs": self._inputs.fill(query),
            "user": query.user or self._user,
            "response_mode": "streaming",
            "auto_generate_name": False,
        }
        # Dify 1.11.0 rejects an empty id, so the key is left out.
        if query.conversation_id:
            body["conversation_id"] = query.conversation_id
        if query.files:
            body["files"] = [_local_file(each) for each in query.files]
        return body

    def upload(self, file: MediaFile, query: Query, deadline: Deadline) -> str:
        """Upload a file as the user who will ask about it; return its type and id.

        Raises:
            AnswerError: `media_too_large`, `media_wrong_type`, or a `ProviderError`.
        """
        authorization, user = self._credential.of_user(query.identity.token), query.user or self._user
        return f"{file.type}:{self._service.upload(file, user, authorization=authorization, deadline=deadline)}"

    def _is_chatflow(self) -> bool:
        if not self._mode:
            with suppress(ProviderError):
                self._learn_mode()
        return self._mode in ("", "advanced-chat")

    def health_check(self) -> bool:
        """Check network, key, app, chat URL and fixed inputs without spending tokens.

        Makes up to three calls of at most 5 seconds each.
        """
        try:
            self._learn_mode()
            self.check_chat()
            wrong = self.wrong_inputs() if self._inputs.names else []
        except ProviderError as exc:
            log.warning("Dify is not well: %s: %s", exc.code, exc)
            return False
        if wrong:
            log.warning("Dify is not well: DIFY_INPUTS: %s", "; ".join(wrong))
        return not wrong

    def _learn_mode(self) -> None:
        mode = self._service.info(authorization=self._credential.own).get("mode")
        self._mode = mode if isinstance(mode, str) else ""

    def check_chat(self) -> None:
        """Check that the chat URL is Dify's. In the mode `user_token` a 401 or 403 proves it as well.

        Raises:
            ProviderError: the URL does not answer, or not as Dify does.
        """
        try:
            self._service.check_chat(authorization=self._credential.own)
        except ProviderError as exc:
            if self._credential.mode != "user_token" or exc.http_status not in (401, 403):
                raise

    def missing_inputs(self) -> list[str]:
        """Return the names of inputs the app requires and DIFY_INPUTS lacks: without them a run may hang.

        Raises:
            ProviderError: the request for the app's input form failed.
        """
        return self._inputs.missing(self._form())

    def wrong_inputs(self) -> list[str]:
        """Describe the values of DIFY_INPUTS that the app's selects do not offer.

        Raises:
            ProviderError: the request for the app's input form failed.
        """
        return self._inputs.wrong(self._form())

    def _form(self) -> Any:
        return self._service.parameters(authorization=self._credential.own).get("user_input_form")

    def clock_skew(self) -> float | None:
        return self._service.clock_skew

    def recover(self, query: Query, ids: ProviderIds, deadline: Deadline) -> Recovered:
        """Return the answer of a run that an earlier owner started, from Dify's history. Waits while the run goes on.

        Raises:
            Unrecoverable: there is no answer, or Dify does not return it in time.
            ProviderError: `provider_paused` if the run waits for a person by other means, because a new run would pause
                again; `interrupted` after `deadline.abort`, `answer_timeout` when the deadline has passed.
        """
        try:
            recovered = self._recovery(query, ids, deadline).answer()
        except ProviderError as exc:
            if not deadline.aborted:
                code = "unrecoverable" if isinstance(exc, Unrecoverable) else exc.code
                log.warning("[Dify RAG Error] %s: %s", code, exc)
            raise
        log.info("[Dify RAG] Recovered, Tokens: %s, Price: %s %s", *_cost(recovered.usage))
        return recovered

    def _recovery(self, query: Query, ids: ProviderIds, deadline: Deadline) -> DifyRecovery:
        try:
            authorization = self._credential.of_user(query.identity.token)
        except ProviderError as exc:
            raise Unrecoverable(str(exc)) from exc
        sent = SentQuestion(ids, query.user or self._user, authorization, query.text, query.asked_at)
        return DifyRecovery(self._service, sent, deadline, timeouts=self._timeouts)

    def cancel(self, ids: ProviderIds, user: str) -> None:
        """Tell Dify to stop a run of this user. In the mode `user_token` Dify may reject the call."""
        if not ids.task_id:
            return
        try:
            self._service.stop(ids.task_id, user or self._user, authorization=self._credential.own)
        except ProviderError as exc:
            log.warning("Dify did not take the stop: %s: %s", exc.code, exc)

    def rate(
        self, message_id: str, user: str, rating: Literal["like", "dislike", ""], content: str, *, token: str = ""
    ) -> None:
        authorization = self._credential.of_user(token) if token else self._credential.own
        self._service.rate(message_id, user or self._user, rating, content, authorization=authorization)

    def close(self) -> None:
        """Close the pooled connections."""
        self._service.close()


def _joined(*parts: str) -> str:
    return " ".join(part for part in parts if part)


def _cost(usage: Usage) -> tuple[int, str, str]:
    return usage.total_tokens, usage.total_price or "0", usage.currency or "-"


def _local_file(file: str) -> dict[str, str]:
    """Return Dify's object for an entry of `Query.files`; an id without a type is a custom file."""
    kind, _, file_id = file.rpartition(":")
    return {"type": kind or "custom", "transfer_method": "local_file", "upload_file_id": file_id}

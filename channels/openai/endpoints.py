"""The endpoints of OpenAI's API: chat completions, as one reply or as a stream, and the list of models."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import chain

from flask import Blueprint, Response, jsonify, request

from channels.following import AnswerWait, Ended, WaitStep
from channels.openai.errors import openai_refusal
from channels.openai.models import Completion, CompletionRequest, ListedModel, ModelList, OpenAIError
from channels.openai.replies import AnswerRun, CompletionStream, ReplyHead, failure, finish_reason
from channels.openai.requests import (
    AskedCompletion,
    ClientConversations,
    CompletionRules,
    asked_completion,
    check_model,
)
from channels.waiting.connection import ClientConnection
from channels.waiting.requests import WaitingQuestions
from channels.web import rest
from channels.web.rest import Operation, RestError
from config.settings import Settings
from config.texts import Texts
from services.conversations.session_store import SessionStore, TextDigest
from services.models import Question

MEDIA_TYPE = "text/event-stream"
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
#: Bytes of a reply that are sent at a time.
PIECE_BYTES = 16 * 1024
#: Seconds for which a stream's status waits for the first text: an error until then is an HTTP status.
FIRST_SECONDS = 15.0


class ChatCompletions:
    """Asks questions of OpenAI clients and returns their answers."""

    def __init__(
        self,
        questions: WaitingQuestions,
        conversations: ClientConversations,
        texts: Texts,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._questions = questions
        self._conversations = conversations
        self._texts = texts
        self._clock = clock

    def answer(self, asked: AskedCompletion) -> Response:
        """Ask a question, or join the answer of the same request, and return the answer.

        Raises:
            RestError: the question was refused, or its answer failed before its first text.
            StoreUnavailable: Redis is away.
        """
        with self._questions.slot() as slot:
            question = self._conversations.question(asked)
            stream_id = self._asked(asked, question)
            # The body counts no longer, so its pictures must not stay in memory until the answer ends.
            asked = replace(asked, pictures=())
            reader = {"bot": question.bot, "principal": question.principal}
            run = AnswerRun(
                partial(self._questions.cancel, stream_id, **reader),
                partial(self._conversations.answered, asked, question),
                resumable=bool(asked.key),
            )
            slot.callback(run.leave)
            wait = self._questions.follow(stream_id, 0, **reader, text=asked.streams)
            head = ReplyHead(stream_id, asked.model)
            if asked.streams:
                return self._stream(head, run, wait, slot, counts=asked.counts)
            return self._whole(head, run, wait, slot)

    def _asked(self, asked: AskedCompletion, question: Question) -> str:
        try:
            return self._questions.ask(question, asked.address, asked.pictures)
        except RestError:
            self._conversations.give_back(asked, question)
            raise

    def _stream(self, head: ReplyHead, run: AnswerRun, wait: AnswerWait, slot: ExitStack, *, counts: bool) -> Response:
        connection, steps = ClientConnection(request.environ), wait.steps()
        first = self._first(steps, connection)
        if isinstance(first, Ended) and not finish_reason(first):
            run.end()
            raise failure(first, self._texts)
        body = CompletionStream(head, run, chain([first], steps), connection, self._texts, counts=counts)
        reply = Response(body, headers=HEADERS, mimetype=MEDIA_TYPE)
        # The server closes every reply, also a broken one; this leaves the run and releases the slot.
        reply.call_on_close(slot.pop_all().close)
        return reply

    def _first(self, steps: Iterator[WaitStep], connection: ClientConnection) -> WaitStep:
        """Return the first step with text, or the end; None when it takes too long or the client is gone."""
        end = self._clock() + FIRST_SECONDS
        for step in steps:
            if isinstance(step, Ended) or (step and step.chunks):
                return step
            if self._clock() >= end or connection.gone:
                return None
        raise openai_refusal("draining", self._texts)

    def _whole(self, head: ReplyHead, run: AnswerRun, wait: AnswerWait, slot: ExitStack) -> Response:
        connection = ClientConnection(request.environ)
        for step in wait.steps():
            if connection.gone:
                # This reply is not read.
                return Response(status=400)
            if isinstance(step, Ended):
                # The server copies a piece before it sends it.
                completion = self._completion(head, run, step)
                pieces = (completion[at : at + PIECE_BYTES] for at in range(0, len(completion), PIECE_BYTES))
                reply = Response(pieces, headers={"Cache-Control": "no-store"}, mimetype="application/json")
                reply.call_on_close(slot.pop_all().close)
                return reply
        raise openai_refusal("draining", self._texts)

    def _completion(self, head: ReplyHead, run: AnswerRun, end: Ended) -> bytes:
        """Return the reply of an ended answer.

        Raises:
            RestError: the answer failed.
            StoreUnavailable: Redis is away.
        """
        finish = finish_reason(end)
        if not finish:
            run.end()
            raise failure(end, self._texts)
        completion = head.completion(end.full, finish)
        content = completion["choices"][0]["message"]["content"]
        run.end(TextDigest(content) if finish == "stop" else None)
        return json.dumps(completion, ensure_ascii=False).encode()


def openai_channel(
    questions: WaitingQuestions,
    turns: SessionStore,
    callers: rest.ProgramChecker,
    models: Mapping[str, Collection[str]],
    settings: Settings,
    texts: Texts,
) -> Blueprint:
    """Return POST /v1/chat/completions, GET /v1/models and GET /v1/models/<model>.

    `models` are the bots that programs may ask, with the options that the provider of each takes.
    """
    conversations = ClientConversations(turns, max_bytes=settings.question_max_bytes)
    completions = ChatCompletions(questions, conversations, texts)
    owner = settings.app_name
    rules = CompletionRules(settings.history_max_bytes, settings.media_max_bytes, texts.get("media_question"))
    routes = Blueprint("openai", __name__)
    listed = {name: {"id": name, "object": "model", "created": 0, "owned_by": owner} for name in models}

    @routes.post("/v1/chat/completions")
    def complete() -> Response:
        return completions.answer(asked_completion(rest.caller(callers, request), models, rules))

    @routes.get("/v1/models")
    def list_models() -> Response:
        rest.caller(callers, request)
        return jsonify({"object": "list", "data": list(listed.values())})

    @routes.get("/v1/models/<model>")
    def show_model(model: str) -> Response:
        rest.caller(callers, request)
        check_model(model, models)
        return jsonify(listed[model])

    return routes


_KEY = "Repeating a request with the same key joins its answer from the beginning; another request with it is refused."
_CONVERSATION = "The conversation, as `metadata.conversation_id`; found by the earlier messages without one."
_ABOUT = (
    "Works with every client of OpenAI's API. The last user message is the question. With `stream` the answer comes as "
    "`chat.completion.chunk` events and `[DONE]`; an event with `error` ends a stream that fails. A client that goes "
    "away cancels the answer, unless it sent an Idempotency-Key."
)

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "POST",
        "/v1/chat/completions",
        "Ask a question as a client of OpenAI's API",
        "openai",
        body=CompletionRequest,
        answers={200: Completion, **dict.fromkeys((400, 404, 409, 500, 502, 504))},
        media={200: MEDIA_TYPE},
        headers={"Idempotency-Key": _KEY, "X-Conversation-Id": _CONVERSATION},
        description=_ABOUT,
        bare=True,
        error=OpenAIError,
    ),
    Operation(
        "GET",
        "/v1/models",
        "List the models: the default bot, and the bots that are offered",
        "openai",
        answers={200: ModelList},
        bare=True,
        error=OpenAIError,
    ),
    Operation(
        "GET",
        "/v1/models/{model}",
        "Show one model",
        "openai",
        answers={200: ListedModel, 404: None},
        bare=True,
        error=OpenAIError,
    ),
)

"""Conversations and repeated requests of OpenAI clients, with Dify behind the endpoint."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests

from demo.mocks.dify.server import MockDify
from demo.mocks.openai.server import MockOpenAI
from tests.support.openai_program import Message, OpenAIProgram, assistant, error_of, read, user
from tests.support.replicas import AppServer, dify_settings
from tests.support.servers.processes import wait_until

KEY, OTHER_KEY = "obviously-fake-api-key", "another-fake-api-key"
FIRST, SECOND = "甲？", "乙？"
SLOW = "年假怎么申请？ [[slow]]"
SETTINGS = {
    "API_KEYS": f"{KEY},{OTHER_KEY}",
    "DRAIN_SECONDS": "0",
    "RATE_LIMIT_USER": "off",
    "QUESTION_MAX_BYTES": "1000",
}


@pytest.fixture
def dify() -> Iterator[MockDify]:
    """A mock Dify whose slow answers take a moment."""
    with MockDify(slow=0.02) as dify:
        yield dify


@pytest.fixture
def app_server(redis_url: str, dify: MockDify) -> Iterator[AppServer]:
    with AppServer(redis_url, **dify_settings(dify.base_url), **SETTINGS) as app_server:
        yield app_server


@pytest.fixture
def program(app_server: AppServer) -> OpenAIProgram:
    return OpenAIProgram(app_server.url, KEY)


def asked(dify: MockDify) -> tuple[str, bool]:
    """Return the last question that Dify got, and whether it was asked in a conversation."""
    body = dify.requests[-1].body
    return body["query"], "conversation_id" in body


# Conversations


@pytest.mark.parametrize("script", ["chatflow", "think"])
@pytest.mark.parametrize("streams", [True, False], ids=["stream", "whole"])
def test_a_conversation_is_found_by_its_messages(
    program: OpenAIProgram, dify: MockDify, script: str, streams: bool
) -> None:
    """The client sends what it has seen, without white space at its ends: Dify gets the question alone, three times."""
    talk: list[Message] = []
    for turn in range(3):
        talk.append(user(f"{FIRST}{turn} [[{script}]]"))
        answer = program.streams(*talk).content if streams else program.content(*talk)
        assert asked(dify) == (talk[-1]["content"], turn > 0)
        talk.append(assistant(answer.strip()))


def test_a_branch_begins_a_conversation_of_its_own(program: OpenAIProgram, dify: MockDify) -> None:
    """A second question after the same messages must not see the first one: the messages go along as text."""
    talk = [user(FIRST), assistant(program.content(FIRST))]
    program.content(*talk, user(SECOND))

    program.content(*talk, user("丙？"))

    query, known = asked(dify)
    assert not known
    assert query.startswith(f"User: {FIRST}\n\nAssistant: ")
    assert query.endswith("\n\nUser: 丙？")


def test_two_talks_of_a_user_are_told_apart_by_their_words(program: OpenAIProgram, dify: MockDify) -> None:
    """With as many messages each, every talk goes on in its own conversation; other words of either side find none."""
    talks = [[user(text), assistant(program.content(text))] for text in (FIRST, "报销需要哪些材料？")]
    begun = list(dify.conversations)

    program.content(user("年假？"), talks[0][1], user(SECOND))
    assert not asked(dify)[1]
    program.content(talks[0][0], assistant("不是这样答的"), user(SECOND))
    assert not asked(dify)[1]
    for talk in talks:
        program.content(*talk, user(SECOND))
    assert [request.body.get("conversation_id") for request in dify.requests[-2:]] == begun


def test_no_other_end_user_finds_a_conversation(program: OpenAIProgram, dify: MockDify) -> None:
    """The principal is the key with the user."""
    talk = [user(FIRST), assistant(program.content(FIRST, user="ann")), user(SECOND)]

    program.content(*talk, user="ben")
    assert not asked(dify)[1]
    OpenAIProgram(program.url, OTHER_KEY).content(*talk, user="ann")
    assert not asked(dify)[1]
    program.content(*talk, user="ann")
    assert asked(dify) == (SECOND, True)


def test_a_client_names_its_conversation(program: OpenAIProgram, dify: MockDify) -> None:
    """In metadata or a header; earlier messages go along with its first question only."""
    named = {"conversation_id": "desk-7"}
    program.content({"role": "system", "content": "Be brief."}, FIRST, metadata=named)
    assert asked(dify) == (f"System: Be brief.\n\nUser: {FIRST}", False)

    program.content({"role": "system", "content": "Be brief."}, user("x"), assistant("y"), user(SECOND), metadata=named)
    assert asked(dify) == (SECOND, True)
    program.content("丙？", headers={"X-Conversation-Id": "desk-7"})
    assert asked(dify) == ("丙？", True)

    reply = program.asks(FIRST, headers={"X-Conversation-Id": "desk-8"}, metadata=named)
    assert error_of(reply) == (400, "invalid_value", "metadata.conversation_id")


def test_messages_that_are_too_long_are_refused_unless_the_conversation_is_known(
    program: OpenAIProgram, dify: MockDify
) -> None:
    """A long talk goes on; a new one cannot take so much along."""
    long = "长" * 300
    talk = [user(long), assistant(program.content(long)), user(SECOND)]
    program.content(*talk)
    assert asked(dify) == (SECOND, True)

    assert error_of(program.asks(user(long), assistant(long), user(SECOND))) == (
        400,
        "context_length_exceeded",
        "messages",
    )


def test_a_refused_question_leaves_its_conversation(
    app_server: AppServer, program: OpenAIProgram, dify: MockDify
) -> None:
    """The client asks again, and goes on where it was."""
    talk = [user(FIRST), assistant(program.content(FIRST)), user(SECOND)]
    app_server.container.manager.draining = True
    refused = program.asks(*talk)
    app_server.container.manager.draining = False

    assert error_of(refused) == (503, "draining", None)
    program.content(*talk)
    assert asked(dify) == (SECOND, True)


def test_a_provider_without_conversations_gets_the_turns_that_were_kept(redis_url: str) -> None:
    """Once, not a second time by what the client sends."""
    with MockOpenAI() as model:
        values = {"OPENAI_BASE_URL": model.base_url, "OPENAI_API_KEY": "sk-fake", "RAG_PROVIDER": "openai"}
        with AppServer(redis_url, **values, **SETTINGS) as app_server:
            program = OpenAIProgram(app_server.url, KEY)
            talk = [user(FIRST), assistant(program.content(FIRST)), user(SECOND)]
            program.content(*talk)

        assert model.asked[-1].body["messages"] == talk


def test_words_and_names_are_in_no_key(app_server: AppServer, program: OpenAIProgram) -> None:
    """The keys of conversations and requests are hashed."""
    program.content(FIRST, user="ann", headers={"Idempotency-Key": "k1"})

    keys = list(app_server.container.redis.keys("dify_turns:*"))
    assert len(keys) == 2
    assert not any(word in str(key) for key in keys for word in ("ann", "k1", FIRST))


# Repeated requests


def test_a_repeated_request_joins_its_answer_from_the_first_chunk(program: OpenAIProgram, dify: MockDify) -> None:
    """While the answer grows, and after its end; Dify is asked once."""
    headers = {"Idempotency-Key": "k1"}
    with program.begins(SLOW, headers=headers) as events:
        next(events), next(events)
        joined = program.streams(SLOW, headers=headers)
        first = read(events)
    after = program.streams(SLOW, headers=headers)

    assert joined.content == after.content == dify.expected_answer(SLOW)
    assert joined.content.endswith(first.content)
    assert {stream.chunks[0]["id"] for stream in (joined, after)} == {first.chunks[0]["id"]}
    assert len(dify.requests) == 1


def test_another_request_under_the_same_key_is_refused(program: OpenAIProgram, dify: MockDify) -> None:
    """Whatever differs. Each end user has keys of their own."""
    headers = {"Idempotency-Key": "k1"}
    program.content(FIRST, headers=headers)

    others = [program.asks(SECOND, headers=headers), program.asks(FIRST, headers=headers, temperature=1)]

    assert [error_of(reply) for reply in others] == [(409, "idempotency_key_reuse", "Idempotency-Key")] * 2
    assert len(dify.requests) == 1
    assert program.content(SECOND, headers=headers, user="ann")
    assert error_of(program.asks(FIRST, headers={"Idempotency-Key": ""})) == (400, "invalid_value", "Idempotency-Key")


def test_a_repeated_request_keeps_its_conversation(program: OpenAIProgram, dify: MockDify) -> None:
    """The first request took the conversation; its repetition is the same question in it, also for the next one."""
    talk = [user(FIRST), assistant(program.content(FIRST)), user(SECOND)]
    headers = {"Idempotency-Key": "k1"}
    answers = [program.content(*talk, headers=headers) for _ in range(2)]

    assert answers[0] == answers[1]
    assert len(dify.requests) == 2
    program.content(*talk, assistant(answers[0]), user("丙？"))
    assert asked(dify) == ("丙？", True)


# Clients that go away


def test_a_client_that_leaves_a_stream_cancels_the_run(program: OpenAIProgram, dify: MockDify) -> None:
    """Dify is told to stop."""
    dify.slow = 0.3
    with program.begins(SLOW) as events:
        next(events), next(events)

    wait_until(lambda: dify.stops, 20)


def test_a_client_that_waits_for_a_whole_answer_and_leaves_cancels_the_run(
    program: OpenAIProgram, dify: MockDify
) -> None:
    """The connection is looked at while the answer grows."""
    dify.slow = 0.3
    with pytest.raises(requests.Timeout):
        program.asks(SLOW, timeout=1.0)

    wait_until(lambda: dify.stops, 20)


def test_an_answer_with_a_key_goes_on_without_its_client(program: OpenAIProgram, dify: MockDify) -> None:
    """The client comes back for it."""
    headers = {"Idempotency-Key": "k1"}
    with program.begins(SLOW, headers=headers) as events:
        next(events), next(events)

    assert program.streams(SLOW, headers=headers).content == dify.expected_answer(SLOW)
    assert not dify.stops
    assert len(dify.requests) == 1

"""What a Dify app must be able to do for the product: stream, take turns, list conversations; and how it blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from services.errors import ProviderError
from tools._checks import Finding
from tools._dify_failures import refuses_blocking, sentence
from tools._dify_talk import Asked, Talk

#: Makes the request for an answer, in a mode and in a conversation; "" is a new one.
Body = Callable[[str, str], Mapping[str, Any]]


def check(talk: Talk, body: Body) -> Iterator[Finding]:
    """Yield how each thing went. Asks four questions, which cost what questions cost."""
    looks = {"stream": _stream, "blocking": _block, "two turns": _take_two_turns, "list": _list}
    for name, look in looks.items():
        try:
            yield look(name, talk, body)
        except ProviderError as exc:
            yield _failure(name, exc, talk)


def _failure(name: str, exc: ProviderError, talk: Talk) -> Finding:
    scene = talk.scene(exc)
    if refuses_blocking(exc, scene):
        return Finding(name, "ok", f"refused, as by any agent app ({scene.mode}): the product always streams")
    return Finding(name, "failed", sentence(exc, scene))


def _stream(name: str, talk: Talk, body: Body) -> Finding:
    return Finding(name, "ok", _told(talk.ask(body("streaming", ""))))


def _block(name: str, talk: Talk, body: Body) -> Finding:
    return Finding(name, "ok", _told(talk.ask(body("blocking", ""))))


def _take_two_turns(name: str, talk: Talk, body: Body) -> Finding:
    first = talk.ask(body("streaming", "")).turn.ids.conversation_id
    second = talk.ask(body("streaming", first)).turn.ids.conversation_id
    if not first or first != second:
        text = (
            f"the second turn is in the conversation {second or 'of no name'}, the first in {first or 'one of no name'}"
        )
        return Finding(name, "failed", text, "see that no proxy before Dify changes requests")
    return Finding(name, "ok", f"both in the conversation {first}")


def _list(name: str, talk: Talk, body: Body) -> Finding:
    wanted = talk.asked.turn.ids.conversation_id
    found = talk.conversations()
    if wanted not in found:
        text = f"the conversation {wanted or 'just begun'} is not among {len(found)} of the user {talk.user}"
        return Finding(name, "failed", text, "see that key and address are of the same app and Dify")
    return Finding(name, "ok", f"{len(found)} conversations of the user {talk.user}, this one among them")


def _told(asked: Asked) -> str:
    usage = asked.turn.usage
    first = f", the first after {asked.first_word:.2f} s" if asked.first_word is not None else ""
    tokens = f", {usage.total_tokens} tokens" if usage.total_tokens else ""
    return f"{len(asked.answer)} characters in {asked.seconds:.2f} s{first}{tokens}"

"""A channel in one file: `POST /toy/<user>/<message>` returns the answer as plain text while it grows."""

from __future__ import annotations

from collections.abc import Iterator

from flask import Blueprint, Response, request

from channels.asking import FollowedStream, QuestionGateway
from config.bots import DEFAULT_BOT
from config.settings import Settings
from services.channels import Channel, ChannelRules
from services.models import Question


def _rules(settings: Settings) -> dict[str, ChannelRules]:
    return {DEFAULT_BOT: ChannelRules(slots=2, resends=True, compares_ids=True)}


TOY = Channel("toy", rules=_rules, authenticates="directory")


def toy_blueprint(gateway: QuestionGateway) -> Blueprint:
    """Return the blueprint with the channel's one endpoint."""
    routes = Blueprint("toy", __name__)

    @routes.post("/toy/<user>/<message>")
    def ask(user: str, message: str) -> Response:
        text = request.get_data(as_text=True)
        asked = gateway.ask(Question(text, TOY.name, DEFAULT_BOT, user, msgid=message))
        if asked.status == "error" and not asked.length:
            return Response(asked.error_code, status=409)
        following = gateway.follow(asked.stream_id, bot=DEFAULT_BOT, principal=user)
        return Response(_pieces(following), mimetype="text/plain", headers={"X-Stream": asked.stream_id})

    return routes


def _pieces(following: FollowedStream) -> Iterator[str]:
    """Yield the pieces of the answer, and at the end the error's sentence if it failed."""
    while True:
        news = following.next(timeout=1.0)
        if news:
            yield from (chunk.content for chunk in news.chunks)
        if news and news.ended:
            yield news.sentence
            return

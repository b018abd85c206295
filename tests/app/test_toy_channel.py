"""A channel that the product does not have: it needs one object and one blueprint, and no change in `services/`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask

from app import create_app
from bootstrap.container import Container
from channels.registry import CHANNELS
from config.settings import load_settings
from demo.mocks.dify.server import MockDify
from services.channels import Channels
from services.models import Question
from services.streams.store import stream_keys
from tests.support.replicas import ADMIN_TOKEN, dify_settings, settings_for
from tests.support.servers.processes import RedisServer
from tests.support.toy_channel import TOY, toy_blueprint

ROOT = Path(__file__).parents[2]


@pytest.fixture
def app(redis_url: str, dify: MockDify) -> Iterator[Flask]:
    """The product with one more channel, and a Dify that answers in pieces."""
    settings = settings_for(redis_url, **dify_settings(dify.base_url))
    app = create_app(load_settings(settings, None), (*CHANNELS, TOY))
    container: Container = app.extensions["wechatlaibao"]
    app.register_blueprint(toy_blueprint(container.gateway))
    yield app
    container.close()


def test_a_toy_channel_answers_as_a_stream(app: Flask, dify: MockDify) -> None:
    """The reply has several pieces, sent while the provider still answers."""
    dify.delay = 0.2
    reply = app.test_client().post("/toy/li/m1", data="年假？")

    pieces = (piece for piece in reply.iter_encoded() if piece)
    first, growing = next(pieces), dify.open_streams
    dify.hurry()
    assert b"".join([first, *pieces]).decode() == dify.expected_answer("年假？")
    assert growing == 1


def test_a_toy_channel_finds_the_stream_of_a_question_sent_again(app: Flask) -> None:
    """The same id finds the same stream; another text under it is rejected, as its rules define."""
    client = app.test_client()
    first, again = (client.post("/toy/li/m1", data="年假？", buffered=True) for _ in range(2))
    other = client.post("/toy/li/m1", data="病假？")

    assert first.headers["X-Stream"] == again.headers["X-Stream"]
    assert (first.text, other.status_code, other.text) == (again.text, 409, "id_conflict")


def test_a_toy_channel_has_its_series_from_the_start(app: Flask) -> None:
    """Its series exist before the first answer, so a rate counts that answer."""
    page = app.test_client().get("/metrics", headers={"Authorization": f"Bearer {ADMIN_TOKEN}"}).text

    assert 'wechatlaibao_streams_total{channel="toy",outcome="completed"} ' in page


def test_a_toy_channels_question_is_stored_like_any_other(app: Flask, redis_server: RedisServer) -> None:
    """A channel adds no field to the stored question."""
    reply = app.test_client().post("/toy/li/m1", data="年假？", buffered=True)

    with redis_server.client() as stored:
        written = stored.hget(stream_keys(reply.headers["X-Stream"]).hash, "question")
    assert isinstance(written, str)
    request = reply.headers["X-Request-Id"]
    assert Question.from_json(written) == Question("年假？", "toy", "default", "li", msgid="m1", request_id=request)


def test_two_channels_of_one_name_stop_the_start() -> None:
    """Otherwise the second one would silently replace the first."""
    with pytest.raises(ValueError, match="toy"):
        Channels((TOY, TOY), {})


def test_services_compare_no_channel_names() -> None:
    """Everything that differs by channel is in its object, so no module of `services` compares a channel's name."""
    compared = [
        f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
        for path in sorted((ROOT / "services").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if compares_channel(node)
    ]

    assert compared == []


def compares_channel(node: ast.AST) -> bool:
    """Tell whether a node compares a channel's name with a constant."""
    if isinstance(node, ast.Match):
        return names_channel(node.subject)
    if not isinstance(node, ast.Compare):
        return False
    sides = (node.left, *node.comparators)
    words = any(isinstance(one, ast.Constant) for side in sides for one in ast.walk(side))
    return words and any(map(names_channel, sides))


def names_channel(node: ast.expr) -> bool:
    """Tell whether an expression is `channel` or an attribute `channel`."""
    return getattr(node, "attr", getattr(node, "id", "")) == "channel"

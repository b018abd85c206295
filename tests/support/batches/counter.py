"""The batch endpoints over `BatchesTwin`, for tests: clients with two API keys, without the rest of the product."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, cast

from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from channels.batch.endpoints import BatchEndpoints
from channels.web.bodies import UploadSlots
from channels.web.errors import register_rest_errors
from config.texts import Texts
from services.batches.manager import BatchManager
from services.identity.callers import CallerMode, Callers
from tests.support.batches.twin import BatchesTwin
from utils.markdown.blocks import render_markdown

KEY, OTHER_KEY = "obviously-fake-key-a", "obviously-fake-key-b"
TASKS = "/api/batch/tasks"
MAX_BYTES = 200_000
QUESTION_BYTES = 20_000


class CountingLimiter:
    """A rate limiter that admits `left` questions."""

    def __init__(self, left: int = 1_000_000) -> None:
        self.left = left
        self.asked: list[tuple[str, str]] = []

    def question(self, principal: str, client_id: str) -> bool:
        self.asked.append((principal, client_id))
        self.left -= 1
        return self.left >= 0


class Counter:
    """A client of the batch endpoints with an API key."""

    def __init__(
        self,
        batches: BatchesTwin | None = None,
        *,
        key: str = KEY,
        limiter: CountingLimiter | None = None,
        files_at_once: int = 2,
        mode: CallerMode = "key",
    ) -> None:
        self.batches = batches or BatchesTwin()
        self.limiter = limiter or CountingLimiter()
        self.client = client_of(self.batches, self.limiter, files_at_once, mode)
        self._key = key

    def asks(self, method: str, path: str, *, headers: Mapping[str, str] | None = None, **more: Any) -> TestResponse:
        return self.client.open(path, method=method, headers={"X-API-Key": self._key, **(headers or {})}, **more)

    def submits(self, *texts: str, key: str = "", **fields: Any) -> TestResponse:
        body = {"name": "FAQ", "texts": list(texts) or ["How?", "Why?"], **fields}
        return self.asks("POST", TASKS, json=body, headers={"Idempotency-Key": key} if key else {})

    def uploads(self, filename: str, content: bytes, **fields: str) -> TestResponse:
        return self.asks("POST", TASKS, data={"file": (io.BytesIO(content), filename), **fields})

    def task(self, *texts: str, **fields: Any) -> str:
        """Submit a task and return its id."""
        return str(data_of(self.submits(*texts, **fields), 201)["task_id"])

    def texts(self, task_id: str) -> list[str]:
        return [result["text"] for result in data_of(self.asks("GET", f"{TASKS}/{task_id}/results"))["results"]]


def client_of(
    batches: BatchesTwin | None, limiter: CountingLimiter, files_at_once: int = 2, mode: CallerMode = "key"
) -> FlaskClient:
    app = Flask(__name__)
    texts = Texts("en")
    register_rest_errors(app, texts)
    callers = Callers(mode, api_keys=(KEY, OTHER_KEY))
    endpoints = BatchEndpoints(
        cast("BatchManager | None", batches),
        callers,
        limiter,
        texts=texts,
        html=render_markdown,
        readers=UploadSlots(
            "busy", "Too many files are being read.", most=files_at_once, most_per_caller=1, seconds=0.1
        ),
        max_bytes=MAX_BYTES,
        question_max_bytes=QUESTION_BYTES,
    )
    app.register_blueprint(endpoints.blueprint())
    return app.test_client()


def data_of(reply: TestResponse, status: int = 200) -> Any:
    """Return the data of a successful reply with this status."""
    assert reply.status_code == status, reply.get_data(as_text=True)
    body = reply.get_json()
    assert {**body, "data": None} == {"code": 200, "message": "Success", "data": None}
    return body["data"]


def refused(reply: TestResponse) -> tuple[int, int, str]:
    """Return the status, the code and the reason of an error reply."""
    body = reply.get_json()
    assert set(body) == {"code", "message", "data"}
    return reply.status_code, body["code"], body["data"]["reason"]

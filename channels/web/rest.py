"""What every REST address shares: how it is documented, how it reads a request, who asks, and how it says no."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any, Literal, Protocol, TypeVar

from flask import Request, request
from pydantic import BaseModel, ConfigDict, ValidationError
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge

from channels.web.admission import credential
from services.errors import AddressBlocked, AuthError, StoreUnavailable
from services.identity.callers import Caller

M = TypeVar("M", bound=BaseModel)

#: The code of the table for SQL and Redis.
STORE_CODE = 40000
#: Wrong fields named in one reply; who sends more wrong ones has the same mistake in all of them.
MAX_ERRORS = 20

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,39}")
#: Kinds of pydantic's errors whose words quote nothing of the input.
_SAFE = re.compile(
    r"missing|extra_forbidden|frozen_field|none_required|literal_error|enum|value_error|finite_number|multiple_of"
    r"|(string|int|float|bool|list|dict|tuple|model|bytes)_(type|parsing|too_short|too_long|unicode|attributes_type)"
    r"|string_pattern_mismatch|int_from_float|int_parsing_size|too_(short|long)|(greater|less)_than(_equal)?"
)


class RestModel(BaseModel):
    """A body, a query string, or the data of an answer: of the documented fields and no others."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class RestError(Exception):
    """An answer that is no success; raise it anywhere below a REST address.

    `reason` is a stable word for programs and goes into the data beside what `data` has; `message` is a sentence of
    ours. A `code` of 0 is the one that the table has for the status.
    """

    def __init__(
        self,
        status: int,
        message: str = "",
        *,
        code: int = 0,
        reason: str = "",
        data: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(reason or message or str(status))
        self.status = status
        self.message = message
        self.code = code
        self.data = {"reason": reason, **(data or {})} if reason else data
        self.headers = headers or {}


@dataclass(frozen=True, slots=True)
class Operation:
    """One documented address. A test compares them with what the application serves."""

    method: str
    #: With its parameters in braces: "/api/batch/tasks/{task_id}".
    path: str
    summary: str
    tag: str
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    #: The model of `data` by HTTP status; None is null, or of an error what every error may have.
    answers: Mapping[int, type[BaseModel] | None] = field(default_factory=lambda: {200: None})
    auth: Literal["key", "admin", "none"] = "key"
    description: str = ""
    #: What an answer may be besides JSON: "text/event-stream", "text/csv"; with the envelope only if it has a model.
    media: Mapping[int, str | tuple[str, ...]] = field(default_factory=dict)
    #: Other forms that the body is taken in: a media type and its model.
    forms: Mapping[str, type[BaseModel]] = field(default_factory=dict)
    #: Request headers that mean something here: what, or their JSON Schema with a description.
    headers: Mapping[str, str | Mapping[str, Any]] = field(default_factory=dict)
    #: Whether answers are the models themselves, without the envelope: health and its like.
    bare: bool = False


class ProgramChecker(Protocol):
    """What is used of `services.identity.callers.Callers`."""

    def program(self, secret: str | None) -> Caller: ...


def body(model: type[M], *, max_bytes: int) -> M:
    """Return the JSON body of the Flask request.

    Raises:
        RestError: 415 it is not called JSON, 413 it is longer than `max_bytes`, 400 it is no JSON, 422 its fields are
            wrong.
    """
    if not request.is_json:
        raise RestError(415, "Send the body as application/json.", code=10000, reason="not_json")
    sent = raw_body(max_bytes=max_bytes)
    try:
        # Strictly, as the documented JSON Schema means it: "true" is not true, and "5" not 5.
        return model.model_validate_json(sent, strict=True)
    except ValidationError as exc:
        if any(problem["type"] == "json_invalid" for problem in exc.errors(include_input=False)):
            raise RestError(400, "The body is not JSON.", code=10000, reason="invalid_json") from exc
        raise wrong_fields(exc.errors(include_url=False, include_context=False, include_input=False)) from exc


def raw_body(*, max_bytes: int) -> bytes:
    """Return the body of the Flask request as it is.

    Raises:
        RestError: 413 it is longer than `max_bytes`, 400 it broke off.
    """
    # One byte more than is taken: a body without a length is silently cut at werkzeug's limit.
    request.max_content_length = max_bytes + 1
    try:
        sent = request.get_data(cache=False)
    except RequestEntityTooLarge as exc:
        raise too_large(max_bytes) from exc
    except (ClientDisconnected, OSError) as exc:
        raise RestError(400, "The body broke off.", code=10000, reason="broken_body") from exc
    if len(sent) > max_bytes:
        raise too_large(max_bytes)
    return sent


def too_large(max_bytes: int) -> RestError:
    message = f"The body is too large: {max_bytes} bytes are taken at most."
    return RestError(413, message, reason="too_large", data={"max_bytes": max_bytes})


def params(model: type[M]) -> M:
    """Return the query string of the Flask request; each parameter counts once, and unknown ones are wrong.

    Raises:
        RestError: 422.
    """
    given = dict(request.args.lists())
    twice = [(name, "was given more than once") for name, values in given.items() if len(values) > 1]
    if twice:
        raise _wrong(twice)
    try:
        return model.model_validate({name: values[0] for name, values in given.items()}, extra="forbid")
    except ValidationError as exc:
        raise wrong_fields(exc.errors(include_url=False, include_context=False, include_input=False)) from exc


def wrong_fields(problems: Sequence[Mapping[str, Any]]) -> RestError:
    """Return what says which fields are wrong, without a word of what was in them."""
    return _wrong([(_place(problem["loc"]), _sentence(problem)) for problem in problems])


def caller(callers: ProgramChecker, asked: Request) -> Caller:
    """Return who asks, by `Authorization: Bearer` or `X-API-Key`.

    Raises:
        RestError: 401 nothing is shown that must be, or it does not count; 429 the address showed too many wrong ones;
            503 nobody can tell while Redis is away.
    """
    try:
        return callers.program(credential(asked.headers))
    except AuthError as exc:
        raise unauthorized(exc.code) from exc
    except AddressBlocked as exc:
        message = "Too many wrong credentials came from this address."
        raise RestError(429, message, reason=exc.code, headers={"Retry-After": str(ceil(exc.seconds))}) from exc
    except StoreUnavailable as exc:
        message = "The credential cannot be checked now."
        raise RestError(503, message, code=STORE_CODE, reason=exc.code, headers={"Retry-After": "5"}) from exc


def unauthorized(reason: str) -> RestError:
    """Return the refusal of who shows nothing ("auth_required") or the wrong thing."""
    missing = "Show an API key: Authorization: Bearer, or X-API-Key."
    message = missing if reason == "auth_required" else "The credential is not, or no longer, valid."
    return RestError(401, message, reason=reason, headers={"WWW-Authenticate": "Bearer"})


def _wrong(problems: Sequence[tuple[str, str]]) -> RestError:
    errors = [{"field": name, "problem": problem} for name, problem in problems[:MAX_ERRORS]]
    return RestError(422, "Some fields are wrong.", reason="invalid_fields", data={"errors": errors})


def _place(path: Sequence[int | str]) -> str:
    """Name a field by its way there. What does not look like a name may be anything, and is not repeated."""
    return ".".join(str(step) if isinstance(step, int) or _NAME.fullmatch(step) else "?" for step in path)


def _sentence(problem: Mapping[str, Any]) -> str:
    return problem["msg"] if _SAFE.fullmatch(problem["type"]) else "Input is not valid"

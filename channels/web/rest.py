"""REST addresses: their documentation, request validation, authentication, and replies in the envelope.

The envelope is {"code", "message", "data"} with a code of the documented table and an HTTP status.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any, Literal, Protocol, TypeVar

from flask import Request, Response, request
from pydantic import BaseModel, ConfigDict, ValidationError
from werkzeug.datastructures import Headers
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge

from channels.web.json_shape import JsonShape
from config.texts import Texts
from services import metrics
from services.admin.tokens import Role
from services.errors import AddressBlocked, AuthError, StoreUnavailable
from services.identity.callers import Caller
from utils.formats.json_slices import is_sliced, json_pieces

#: The prefix of a WebSocket subprotocol that carries a credential: browsers can add nothing else to a handshake.
BEARER = "bearer."

M = TypeVar("M", bound=BaseModel)

#: The envelope code of SQL and Redis errors.
STORE_CODE = 40000
#: Maximum wrong fields listed in one reply; more of them usually repeat one mistake.
MAX_ERRORS = 20

#: The values of a body by default: several times those of the largest question.
SHAPE = JsonShape(values=20_000, members=1_000)

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,39}")
#: Types of pydantic errors whose messages quote nothing of the input.
_SAFE = re.compile(
    r"missing|extra_forbidden|frozen_field|none_required|literal_error|enum|value_error|finite_number|multiple_of"
    r"|(string|int|float|bool|list|dict|tuple|model|bytes)_(type|parsing|too_short|too_long|unicode|attributes_type)"
    r"|string_pattern_mismatch|int_from_float|int_parsing_size|too_(short|long)|(greater|less)_than(_equal)?"
)


class RestModel(BaseModel):
    """A body, a query string or the data of an answer; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class RestError(Exception):
    """An error reply; raise it anywhere in the code of a REST address.

    `reason` is a stable word for programs and is added to `data`; `message` is a sentence for people. A `code` of 0
    means the default code of the status.
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
        #: Whether nothing was done, so that another replica may get the same request.
        self.for_another = False

    def translated(self, texts: Texts) -> RestError:
        """Return the same error with its message, and the problems of its fields, in the language of `texts`."""
        data = self.data
        if isinstance(data, dict) and "errors" in data:
            errors = [{**each, "problem": texts.translated(each["problem"])} for each in data["errors"]]
            data = {**data, "errors": errors}
        return RestError(self.status, texts.translated(self.message), code=self.code, data=data, headers=self.headers)


@dataclass(frozen=True, slots=True)
class Operation:
    """One documented address. A test compares these with the routes of the application."""

    method: str
    #: With parameters in braces: "/api/batch/tasks/{task_id}".
    path: str
    summary: str
    tag: str
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    #: The model of `data` by HTTP status; None means null, and for an error the data common to all errors.
    answers: Mapping[int, type[BaseModel] | None] = field(default_factory=lambda: {200: None})
    #: "key": by WEBSOCKET_AUTH. "api_key": one of API_KEYS in every mode. A role: an administrator who has it.
    auth: Literal["key", "api_key", "none"] | Role = "key"
    description: str = ""
    #: Media types of an answer besides JSON, by status, such as "text/csv"; JSON is listed too if there is a model.
    media: Mapping[int, str | tuple[str, ...]] = field(default_factory=dict)
    #: The models of the data of server-sent events, by the event's name; None is an empty object. The data of `error`
    #: is the model's error reply.
    events: Mapping[str, type[BaseModel] | None] = field(default_factory=dict)
    #: The model of a body that is sent as multipart/form-data, with a file; None where that is not accepted.
    multipart: type[BaseModel] | None = None
    #: The request headers used: a description, or a JSON Schema with one.
    headers: Mapping[str, str | Mapping[str, Any]] = field(default_factory=dict)
    #: Whether answers are the models without the envelope, as those of health are.
    bare: bool = False
    #: The model of every error, where errors have neither the envelope nor, being bare, the code alone.
    error: type[BaseModel] | None = None


class ProgramChecker(Protocol):
    """Checks credentials at REST addresses, as `services.identity.callers.Callers` does."""

    def program(self, secret: str | None) -> Caller: ...


def body(model: type[M], *, max_bytes: int, shape: JsonShape = SHAPE) -> M:
    """Return the JSON body of the Flask request.

    Raises:
        RestError: 415 its content type is not JSON, 413 it is longer than `max_bytes`, 400 it is not JSON, 422 its
            fields are invalid, or there are more of them than `shape` allows.
    """
    return parsed(model, json_body(max_bytes=max_bytes), shape)


def json_body(*, max_bytes: int) -> bytes:
    """Return the raw body of a Flask request whose content type is JSON.

    Raises:
        RestError: 415 its content type is not JSON, and those of `raw_body`.
    """
    if not request.is_json:
        raise RestError(415, "Send the body as application/json.", code=10000, reason="not_json")
    return raw_body(max_bytes=max_bytes)


def parsed(model: type[M], sent: bytes, shape: JsonShape = SHAPE) -> M:
    """Return a JSON body as the model.

    Raises:
        RestError: 400 it is not JSON, 422 its fields are invalid, or there are more of them than `shape` allows.
    """
    if not shape.fits(sent):
        metrics.BODIES_REFUSED.labels("shape").inc()
        raise wrong_field("", f"has more than {shape.values} values, or more than {shape.members} in an object")
    try:
        # Strict, as the documented JSON Schema: "true" is not true, and "5" is not 5.
        return model.model_validate_json(sent, strict=True)
    except ValidationError as exc:
        problems = exc.errors(include_url=False, include_context=False, include_input=False)
        if any(problem["type"] == "json_invalid" for problem in problems):
            raise RestError(400, "The body is not JSON.", code=10000, reason="invalid_json") from exc
        raise wrong_fields(problems) from exc


def raw_body(*, max_bytes: int, around: int = 0) -> bytes:
    """Return the raw body of the Flask request; `around`: bytes that it may have besides its `max_bytes`.

    Raises:
        RestError: 413 it is longer, 400 it is incomplete.
    """
    # One byte more than allowed, because werkzeug silently cuts a body without Content-Length at this limit.
    request.max_content_length = max_bytes + around + 1
    try:
        sent = request.get_data(cache=False)
    except RequestEntityTooLarge as exc:
        raise too_large(max_bytes) from exc
    except (ClientDisconnected, OSError) as exc:
        raise RestError(400, "The body broke off.", code=10000, reason="broken_body") from exc
    if len(sent) > max_bytes + around:
        raise too_large(max_bytes)
    return sent


def too_large(max_bytes: int) -> RestError:
    message = f"The body is too large: {max_bytes} bytes are taken at most."
    return RestError(413, message, reason="too_large", data={"max_bytes": max_bytes})


def params(model: type[M]) -> M:
    """Return the query string of the Flask request.

    Raises:
        RestError: 422 a parameter is repeated, unknown or invalid.
    """
    given = dict(request.args.lists())
    twice = [(name, "was given more than once") for name, values in given.items() if len(values) > 1]
    if twice:
        raise _wrong(twice)
    try:
        return model.model_validate({name: values[0] for name, values in given.items()}, extra="forbid")
    except ValidationError as exc:
        raise wrong_fields(exc.errors(include_url=False, include_context=False, include_input=False)) from exc


def wrong_field(field: str, problem: str) -> RestError:
    """Return the error for one wrong field."""
    return _wrong([(field, problem)])


def wrong_fields(problems: Sequence[Mapping[str, Any]]) -> RestError:
    """Return an error that names the wrong fields without quoting their values."""
    return _wrong([(_path(problem["loc"]), _sentence(problem)) for problem in problems])


def caller(callers: ProgramChecker, asked: Request) -> Caller:
    """Return the caller of a request, by `Authorization: Bearer` or `X-API-Key`.

    Raises:
        RestError: 401 the credential is missing or invalid; 429 the address has shown too many wrong ones; 503 or 500
            it cannot be checked while Redis is unavailable, or refuses the gateway's login.
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
        later = {"Retry-After": "5"} if exc.status == 503 else {}
        raise RestError(exc.status, message, code=STORE_CODE, reason=exc.code, headers=later) from exc


def credential(headers: Headers | Mapping[str, str]) -> str | None:
    """Return the credential in a request's headers, None when there is none; the URL is never read for it."""
    scheme, _, secret = headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return secret.strip()
    if (key := headers.get("X-API-Key")) is not None:
        return key.strip()
    offered = [one.strip() for one in headers.get("Sec-WebSocket-Protocol", "").split(",")]
    carried = next((one for one in offered if one.startswith(BEARER)), None)
    return None if carried is None else _decoded(carried.removeprefix(BEARER))


def _decoded(text: str) -> str:
    """Decode base64url without padding; return "", which is never a valid credential, when `text` is malformed."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        return ""


def unauthorized(reason: str) -> RestError:
    """Return the error for a missing credential ("auth_required") or a wrong one (any other `reason`)."""
    missing = "Show an API key: Authorization: Bearer, or X-API-Key."
    message = missing if reason == "auth_required" else "The credential is not, or no longer, valid."
    return RestError(401, message, reason=reason, headers={"WWW-Authenticate": "Bearer"})


def _wrong(problems: Sequence[tuple[str, str]]) -> RestError:
    errors = [{"field": name, "problem": problem} for name, problem in problems[:MAX_ERRORS]]
    return RestError(422, "Some fields are wrong.", reason="invalid_fields", data={"errors": errors})


def _path(path: Sequence[int | str]) -> str:
    """Return a field's path such as "texts.0"; steps that do not look like names are not repeated but shown as "?"."""
    return ".".join(str(step) if isinstance(step, int) or _NAME.fullmatch(step) else "?" for step in path)


def _sentence(problem: Mapping[str, Any]) -> str:
    return problem["msg"] if _SAFE.fullmatch(problem["type"]) else "Input is not valid"


#: All codes and their default messages.
CODES = {
    200: "Success",
    400: "Request Error",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    500: "Server Error",
    503: "Service Unavailable",
    504: "Gateway Timeout",
    10000: "Parameter Error",
    20000: "Business Error",
    30000: "Third-party Error",
    40000: "Database Error",
    90000: "Unknown Error",
}
#: The default code by HTTP status, where it is not the status itself.
OF_STATUS = {409: 20000, 413: 10000, 415: 10000, 422: 10000, 429: 20000, 502: 30000, 504: 30000}


class SlicedResponse(Response):
    """A reply that is built while it is sent. It is not compressed: each open reply would need a compressor."""


def enveloped(data: Any = None, *, status: int = 200, code: int = 0, message: str = "") -> dict[str, Any]:
    """Return a reply's body; `code` and `message` default to those of the HTTP status."""
    code = code or OF_STATUS.get(status) or (status if status in CODES else _nearest(status))
    return {"code": code, "message": message or CODES[code], "data": data}


def envelope(
    data: Any = None, *, status: int = 200, code: int = 0, message: str = "", headers: Mapping[str, str] | None = None
) -> Response:
    """Return a reply; a text in `data` that comes in slices is read while it is sent."""
    body = enveloped(data, status=status, code=code, message=message)
    if is_sliced(body):
        return SlicedResponse(json_pieces(body), status, headers, mimetype="application/json")
    return Response(json.dumps(body, ensure_ascii=False), status, headers, mimetype="application/json")


def _nearest(status: int) -> int:
    return 200 if status < 400 else 400 if status < 500 else 500


def connection_of(environ: Mapping[str, Any]) -> socket.socket | None:
    """Return the accepted connection of a WSGI request; None if the server does not expose it."""
    return environ.get("gunicorn.socket") or environ.get("werkzeug.socket")


def is_for_operators(ops_port: int | None) -> bool:
    """Tell whether the request came by the operators' port; always True without such a port.

    Reads the port of the accepted socket, because the client can forge headers and values derived from them.
    """
    if ops_port is None:
        return True
    accepted = connection_of(request.environ)
    try:
        return accepted is not None and bool(accepted.getsockname()[1] == ops_port)
    except OSError:
        return False

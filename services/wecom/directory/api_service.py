"""WeCom's directory (通讯录) over its server API: four calls. Errors contain no token, secret or name.

    GET  /cgi-bin/gettoken?corpid=&corpsecret=      {errcode, errmsg, access_token, expires_in}
    GET  /cgi-bin/user/get?access_token=&userid=    {errcode, errmsg, userid, name, department: [id], main_department}
    GET  /cgi-bin/department/get?access_token=&id=  {errcode, errmsg, department: {id, name, …}}
    POST /cgi-bin/batch/openuserid_to_userid?access_token=  {"open_userid_list": […]}
         {errcode, errmsg, userid_list: [{userid, open_userid}], invalid_open_userid_list: […]}

Documented (developer.work.weixin.qq.com, paths 91039, 90196, 95884 and 101521): these fields; success is errcode 0, not
HTTP 200; a token must be kept and shared, lives `expires_in` seconds (7200) and may end earlier; the codes below. An
application reads the people and departments in its visible range only. The Secret of 通讯录同步 reads no person from
addresses that were added after August 2022, and the conversion needs the token of a self-built application: so the
Secret is that of a self-built application.

Not documented for smart robots: whether an id in a callback is encrypted (it depends on who created the robot), and
the form of an encrypted id. So a userid that the directory does not know is converted, and one that cannot be
converted is used unchanged. `source_agentid` of the conversion names an application; a robot has none, and it is left
out, as in published clients.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from services.errors import ProviderError
from services.http.connections import hide_parameters
from services.http.service import HTTPService
from utils.deadline import Deadline

#: Seconds for one connection and for one reply, and bytes of the longest reply that is read.
CONNECT_TIMEOUT, TIMEOUT = 2.0, 3.0
MOST_REPLY = 65_536
#: Characters of the longest name that is kept; WeCom's own limit is 64.
MOST_NAME = 128
#: The least and the most seconds for which an access token is used, for any `expires_in`.
SHORTEST_LIFE, LONGEST_LIFE = 60.0, 7200.0

#: The access token is not valid, or no longer.
BAD_TOKEN = (40014, 42001)
#: The person is unknown, or not in the application's visible range; every other code is about the deployment or WeCom.
BAD_PERSON = (40003, 60011, 60111)


class ContactsRefused(ProviderError):
    """WeCom's reply has an `errcode`; its `errmsg` is not kept, because it quotes the request."""

    def __init__(self, call: str, errcode: int) -> None:
        super().__init__(f"{call}: errcode {errcode}")
        self.errcode = errcode


class Person(NamedTuple):
    """A member of the directory; `departments` are ids, the main one first."""

    userid: str
    name: str
    departments: tuple[int, ...]


class ContactsApi:
    """One application's access to the directory of one company. Thread-safe.

    Every call raises `ContactsRefused` for an errcode, and `ProviderError` without a reply of the API.
    """

    def __init__(self, url: str, *, corp_id: str, secret: str, pool_size: int = 20, timeout: float = TIMEOUT) -> None:
        self._url = url.rstrip("/")
        self._credentials = {"corpid": corp_id, "corpsecret": secret}
        self._timeout = timeout
        self._http = HTTPService(pool_size=pool_size, connect_timeout=CONNECT_TIMEOUT)
        hide_parameters()

    def token(self, deadline: Deadline) -> tuple[str, float]:
        """Return an access token and the seconds it lives."""
        reply = self._call("gettoken", deadline, params=self._credentials)
        token, life = reply.get("access_token"), reply.get("expires_in")
        if not isinstance(token, str) or not token or not token.isascii():
            raise ProviderError("gettoken: no access_token")
        seconds = float(life) if isinstance(life, int) and not isinstance(life, bool) else LONGEST_LIFE
        return token, min(max(seconds, SHORTEST_LIFE), LONGEST_LIFE)

    def person(self, token: str, userid: str, deadline: Deadline) -> Person:
        """Return a member by the plain userid."""
        reply = self._call("user/get", deadline, params={"access_token": token, "userid": userid})
        main, listed = reply.get("main_department"), reply.get("department")
        ids = [main, *listed] if isinstance(listed, list) else [main]
        numbers = dict.fromkeys(one for one in ids if isinstance(one, int) and not isinstance(one, bool) and one > 0)
        return Person(_text(reply.get("userid")) or userid, _text(reply.get("name")), tuple(numbers))

    def department(self, token: str, number: int, deadline: Deadline) -> str:
        """Return the name of a department."""
        reply = self._call("department/get", deadline, params={"access_token": token, "id": number})
        department = reply.get("department")
        return _text(department.get("name")) if isinstance(department, dict) else ""

    def plain_userid(self, token: str, userid: str, deadline: Deadline) -> str:
        """Return the plain userid of an encrypted one; "" if it is not encrypted, or not visible to the application."""
        body = {"open_userid_list": [userid]}
        reply = self._call("batch/openuserid_to_userid", deadline, params={"access_token": token}, body=body)
        listed = reply.get("userid_list")
        pairs = [pair for pair in listed if isinstance(pair, dict)] if isinstance(listed, list) else []
        return next((_text(pair.get("userid")) for pair in pairs if pair.get("open_userid") == userid), "")

    def close(self) -> None:
        """Close the pooled connections."""
        self._http.close()

    def _call(
        self, name: str, deadline: Deadline, *, params: Mapping[str, Any], body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        verb, url = "GET" if body is None else "POST", f"{self._url}/cgi-bin/{name}"
        options: dict[str, Any] = {"deadline": deadline, "timeout": self._timeout, "headers": {}}
        try:
            with self._http.exchange(verb, url, params=params, json=body, **options) as reply:
                status, read = reply.status, reply.read_all(limit=MOST_REPLY, timeout=self._timeout)
        except ProviderError as exc:
            # The cause of the error quotes the address, which has the secret or the token.
            raise ProviderError(f"{name}: {exc}", code=exc.code) from None
        return _checked(name, status, read)


def _checked(name: str, status: int, body: bytes) -> dict[str, Any]:
    try:
        reply = json.loads(body)
    except (ValueError, RecursionError):
        reply = None
    if status != 200 or not isinstance(reply, dict):
        raise ProviderError(f"{name}: HTTP {status}, not the API's reply", http_status=status)
    errcode = reply.get("errcode", 0)
    if errcode != 0:
        raise ContactsRefused(name, errcode if isinstance(errcode, int) else -1)
    return reply


def _text(value: Any) -> str:
    """Return a text of a reply without half surrogate pairs, which Redis cannot store; "" for another type."""
    return value.encode("utf-8", "replace").decode().strip()[:MOST_NAME] if isinstance(value, str) else ""

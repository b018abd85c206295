"""A mock of WeCom's directory API over real HTTP, with the demo's people and faults that can be switched on.

It answers with WeCom's own errcodes: 40001 wrong Secret, 40013 wrong company, 40014 no such token, 42001 an expired
one, 45009 too many calls, 60003 unknown department, 60011 outside the visible range, 60111 unknown userid.
"""

from __future__ import annotations

import secrets
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

from demo.mocks.http import Handler, HttpMock

Fault = Literal["", "slow", "hang", "error", "garbage"]

CORP_ID = "ww0123456789demo"
SECRET = "obviously-fake-contact-secret"
#: What a callback has in place of a userid where the robot's creator is no super administrator.
ENCRYPTED = "woDEMOencrypted-"


@dataclass(frozen=True, slots=True)
class Member:
    """A person of the directory; the first department is the main one."""

    userid: str
    name: str
    departments: tuple[int, ...] = (1,)
    #: Whether the application may see this person.
    visible: bool = True


#: lisi is in no user table, and yet a member of the company.
MEMBERS = (
    Member("zhangsan", "张三", (2,)),
    Member("lisi", "李四", (3, 2)),
    Member("wangwu", "王五", (3,)),
)
DEPARTMENTS = {1: "来宝公司", 2: "研发部", 3: "市场部"}


def encrypted(userid: str) -> str:
    """Return the encrypted form of a userid, as this company's callbacks may have it."""
    return ENCRYPTED + userid[::-1]


class MockContacts(HttpMock):
    """A context manager. `url` is the API's address.

    `faults` has by call what goes wrong with later ones, such as {"gettoken": "hang"}; `errcodes` has their errcodes.
    `calls` counts calls by name, `asked` counts successful `user/get` by userid, `tokens` has the issued tokens.
    """

    def __init__(
        self, members: Iterable[Member] = MEMBERS, departments: Mapping[int, str] = DEPARTMENTS, *, port: int = 0
    ) -> None:
        self.members = {member.userid: member for member in members}
        self.departments = dict(departments)
        self.faults: dict[str, Fault] = {}
        self.errcodes: dict[str, int] = {}
        #: Seconds that "slow" takes, and seconds that tokens are said to live.
        self.delay, self.life = 3.0, 7200
        self.calls: Counter[str] = Counter()
        self.asked: Counter[str] = Counter()
        self.tokens: list[str] = []
        self._expired: set[str] = set()
        self._mutex = threading.Lock()
        self.listen("127.0.0.1", port, _ContactsHandler)

    @property
    def url(self) -> str:
        return self.address

    def expire_tokens(self) -> None:
        """End every issued token, as WeCom may do at any time."""
        with self._mutex:
            self._expired.update(self.tokens)

    def answer(self, call: str, given: Mapping[str, str], body: Any) -> tuple[int, Any]:
        """Count the call; return the reply's status and its JSON, or bytes that are none."""
        with self._mutex:
            self.calls[call] += 1
        fault = self.faults.get(call, self.faults.get("*", ""))
        if self.closing.wait({"slow": self.delay, "hang": None}.get(fault, 0.0)):
            raise ConnectionAbortedError("the mock is closing")
        if fault in ("error", "garbage"):
            return (502 if fault == "error" else 200), b"<html>maintenance</html>"
        errcode = self.errcodes.get(call, 0)
        reply = {"errcode": errcode} if errcode else self._reply(call, given, body)
        return 200, {"errmsg": "ok" if not reply.get("errcode") else f"refused, hint: {given}", **reply}

    def _reply(self, call: str, given: Mapping[str, str], body: Any) -> dict[str, Any]:
        if call == "gettoken":
            return self._token(given)
        if errcode := self._token_error(given.get("access_token", "")):
            return {"errcode": errcode}
        match call:
            case "user/get":
                return self._member(given.get("userid", ""))
            case "department/get":
                return self._department(given.get("id", ""))
            case "batch/openuserid_to_userid":
                return self._converted(body)
        return {"errcode": -1}

    def _token(self, given: Mapping[str, str]) -> dict[str, Any]:
        if given.get("corpid") != CORP_ID:
            return {"errcode": 40013}
        if given.get("corpsecret") != SECRET:
            return {"errcode": 40001}
        token = f"demo-access-{secrets.token_hex(12)}"
        with self._mutex:
            self.tokens.append(token)
        return {"errcode": 0, "access_token": token, "expires_in": self.life}

    def _token_error(self, token: str) -> int:
        with self._mutex:
            if token in self._expired:
                return 42001
            return 0 if token in self.tokens else 40014

    def _member(self, userid: str) -> dict[str, Any]:
        member = self.members.get(userid)
        if member is None or not member.visible:
            return {"errcode": 60111 if member is None else 60011}
        with self._mutex:
            self.asked[userid] += 1
        ids = list(member.departments)
        return {
            "errcode": 0,
            "userid": userid,
            "name": member.name,
            "department": sorted(ids),
            "main_department": ids[0],
        }

    def _department(self, number: str) -> dict[str, Any]:
        name = self.departments.get(int(number)) if number.isdecimal() else None
        if name is None:
            return {"errcode": 60003}
        return {"errcode": 0, "department": {"id": int(number), "name": name, "parentid": 1, "order": 1}}

    def _converted(self, body: Any) -> dict[str, Any]:
        listed = body.get("open_userid_list") if isinstance(body, dict) else None
        if not isinstance(listed, list) or len(listed) > 1000:
            return {"errcode": 40058}
        known = {encrypted(userid): userid for userid in self.members}
        pairs = [{"open_userid": one, "userid": known[one]} for one in listed if one in known]
        return {
            "errcode": 0,
            "userid_list": pairs,
            "invalid_open_userid_list": [one for one in listed if one not in known],
        }


class _ContactsHandler(Handler):
    mock: MockContacts

    def get(self) -> None:
        self._answer(None)

    def post(self) -> None:
        self._answer(self.json_body())

    def _answer(self, body: Any) -> None:
        parts = urlsplit(self.path)
        given = {name: values[0] for name, values in parse_qs(parts.query).items()}
        status, reply = self.mock.answer(parts.path.removeprefix("/cgi-bin/"), given, body)
        if isinstance(reply, bytes):
            self.send(status, reply, "text/html")
        else:
            self.reply(reply, status)

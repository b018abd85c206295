"""Deletes what the gateway has of a person: in SQL, and in Redis, where one pass over all keys finds it."""

from __future__ import annotations

import hmac
import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import redis

from bootstrap.container import Container
from config.errors import SettingsError
from config.settings import Settings
from services.batches.store import SqlBatchStore
from services.errors import BatchFinished, BatchUnknown
from services.feedback.sql_store import SqlFeedbackStore
from services.identity.callers import USER
from services.models import Question
from services.redis.store import Call, ScriptRunner, redis_errors, servers
from services.streams.access import Access
from services.streams.store import running_key
from services.usage.ended_store import QUEUE
from services.usage.sql_store import SqlUsageStore
from utils.keyring import keys_of

#: What is counted, in the order of the report.
KINDS = ("rows", "usage", "ratings", "streams", "files", "conversations", "histories", "tokens", "names", "batches")
#: What no run of this tool reaches.
NOT_REACHED = (
    "the provider's own log and its conversations (delete them there, such as in Dify's console)",
    "log lines and their files (LOG_DIR), files that were exported, and backups of SQL and Redis",
    "the company's own lists: WeCom's directory, the user table, files of rules and departments",
    "messages that have left: WeCom's chats, HANDOFF_WEBHOOK, callback_url of batches, traces",
    "questions of programs under a name of the program's own (the log has them as caller, not as person)",
    "questions that an administrator has asked again as a batch (BATCH_RETENTION_DAYS)",
    "words in a group's conversation that all its members share (/reset there deletes it)",
    "pushes to the person and files of questions: encrypted in Redis, they expire within a day and within STREAM_TTL",
    "counts of rate limits, uploads and quotas in Redis: under hashed names, they expire with their hour, day or month",
    "the audit of administrators, where an act names the person (AUDIT_DAYS)",
)
#: The beginnings of keys of tokens and of refused authentications.
TOKENS = ("authorization:wechatid:", "authorization.wechatid.", "authorization:denied:")
#: Keys read or deleted in one pipeline, and seconds to wait for running answers to end and to be logged.
AT_ONCE, WAIT_SECONDS = 200, 10.0
#: Seconds after which no worker opens a stream for an item of a batch that was cancelled.
ITEM_SECONDS = 3.0


@dataclass(slots=True)
class ForgottenPerson:
    """The names of a person in keys and rows."""

    userid: str
    #: The principals of the person's questions: the userid, its encrypted forms, and the user of a token.
    principals: set[str]
    #: Fingerprints in ratings, and hashes in the keys of conversations.
    fingerprints: set[str] = field(default_factory=set)
    hashes: set[str] = field(default_factory=set)
    #: Beginnings of the keys of conversations that clients of the OpenAI endpoint go on with.
    turns: tuple[str, ...] = ()
    streams: set[str] = field(default_factory=set)

    @property
    def escaped(self) -> set[str]:
        """The principals as they are in the keys of tokens."""
        return {one.replace("%", "%25").replace(":", "%3A") for one in self.principals}


class PersonEraser:
    """Finds and deletes what the gateway has of one person."""

    def __init__(self, container: Container, userid: str) -> None:
        self._container = container
        self._servers = servers(container.redis)
        self._access = Access(container.keys.streams())
        self.person = ForgottenPerson(userid, {userid, f"{USER}{userid}"})
        self.counts: Counter[str] = Counter(dict.fromkeys(KINDS, 0))
        #: What this run does not reach.
        self.not_reached = list(NOT_REACHED)

    def run(self, settings: Settings, *, delete: bool) -> None:
        """Count what there is, and `delete` it.

        Raises:
            StoreUnavailable: Redis or SQL is away; a further run continues.
        """
        url = settings.sql_url.get_secret_value() if settings.sql_url else ""
        if url:
            # First, so that no further item of theirs is asked.
            self._clear_batches(settings, url, delete=delete)
        with redis_errors():
            self._find_names()
            self._find_streams()
            if delete:
                self._end_streams()
            for server in self._servers:
                self._sweep(server, delete=delete)
        if url:
            self._clear_sql(url, delete=delete)

    def _find_names(self) -> None:
        """Find the encrypted userids of the person, then all names under which keys and rows are stored."""
        for server in self._servers:
            for key in server.scan_iter("dify_contact:*", count=1000):
                _, _, userid = str(key).split(":", 2)
                for directory in self._container.directories.values():
                    known = directory.known([userid]).get(userid)
                    if known and known.userid == self.person.userid:
                        self.person.principals.add(userid)
        for bot in self._container.keys.streams():
            for principal in self.person.principals:
                self.person.fingerprints |= set(self._access.readers(Question("", "", bot, principal)).split())
        for keyring in self._container.keys.conversations().values():
            for secret in keys_of(keyring):
                for bot in self._container.keys.streams():
                    for principal in self.person.principals:
                        name = f"{bot}/{principal}"
                        self.person.hashes.add(hmac.digest(secret, name.encode(), "sha256").hex()[:24])
        self.person.turns = tuple(self._container.sessions.prefix(one) for one in self.person.principals)

    def _find_streams(self) -> None:
        for server in self._servers:
            for some in _pages(server.scan_iter("dify_stream:*", count=1000)):
                written = _piped(server, [("HGET", key, "question") for key in some])
                for key, question in zip(some, written, strict=True):
                    if _principal(question) in self.person.principals:
                        self.person.streams.add(key.removeprefix("dify_stream:"))

    def _end_streams(self) -> None:
        """Cancel running answers, and wait until their owners have learned it and their rows are written.

        An owner that has not learned it would write its stream again, and a row that is not written would come later.
        """
        for stream_id in self.person.streams:
            self._container.streams.cancel(stream_id)
        end = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < end and self._unfinished():
            time.sleep(0.2)

    def _unfinished(self) -> set[str]:
        """Return the person's streams that an owner may still write, and those that wait for the log."""
        streams, runner = sorted(self.person.streams), self._container.runner
        calls = [Call(None, ("ZSCORE", running_key(stream_id), stream_id)) for stream_id in streams]
        *running, waiting = runner.run([*calls, Call(None, ("ZRANGE", QUEUE), (0, -1))])
        queued = {str(entry).split(" ")[0] for entry in waiting}
        return {one for one, score in zip(streams, running, strict=True) if score is not None or one in queued}

    def _sweep(self, server: redis.Redis, *, delete: bool) -> None:
        for some in _pages(server.scan_iter("*", count=1000)):
            found = [(key, kind) for key in some if (kind := self._kind(key))]
            found += self._notes(server, some)
            self.counts.update(kind for _, kind in found if kind in KINDS)
            self._withdraw_ratings(server, some, delete=delete)
            if delete:
                _piped(server, [("UNLINK", key) for key, _ in found])

    def _kind(self, key: str) -> str:
        """Return what a key of the person is; "" for a key of anybody else, "-" for one that is not counted."""
        person = self.person
        if key.startswith(("dify_stream:", "{dify_stream:")):
            stream_id, _, part = key.removeprefix("{").removeprefix("dify_stream:").partition("}")
            kind = "files" if part.startswith(":file:") else "-" if part else "streams"
            return kind if stream_id in person.streams else ""
        if key.startswith(("dify_conversation:", "{dify_conversation:")):
            is_mine = not person.hashes.isdisjoint(key.split(":"))
            kind = "histories" if key.endswith(":history") else "-" if key.startswith("{") else "conversations"
            return kind if is_mine else ""
        if key.startswith("{dify_long_connection:") and "}:answer:" in key:
            return "-" if key.rpartition(":")[2] in person.streams else ""
        if key.startswith("dify_turns:"):
            return "-" if key.startswith(person.turns) else ""
        head, _, rest = key.partition(":")
        if head in ("dify_contact", "dify_user_name", "dify_user") and rest:
            name = rest.split(":", 1)[1].removesuffix(":asked") if ":" in rest else ""
            return ("names" if head == "dify_user_name" else "-") if name in person.principals else ""
        for prefix in TOKENS:
            if key.startswith(prefix):
                # Without the corp; a colon of a userid is escaped there.
                name = key.removeprefix(prefix).rpartition(":")[2]
                return "tokens" if name in person.escaped else ""
        return ""

    def _notes(self, server: redis.Redis, keys: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Yield the keys of the person that only their values show.

        The notes for ratings of the person's answers, those for commands about the last question, and the keys that
        make the person's tokens valid.
        """
        asked = [key for key in keys if key.startswith("{dify_asked:") and key.endswith("}:streams")]
        for key, found in zip(asked, _piped(server, [("LRANGE", key, "0", "-1") for key in asked]), strict=True):
            if not self.person.streams.isdisjoint(found if isinstance(found, list) else ()):
                yield from ((key, "-"), (key.replace("}:streams", "}:last"), "-"))
        notes = [key for key in keys if key.startswith("{dify_stream:") and key.endswith("}:answer")]
        for key, asker in zip(notes, _piped(server, [("HGET", key, "asker") for key in notes]), strict=True):
            if _member(asker, "user") in self.person.principals:
                yield key, "-"
        pointers = [key for key in keys if self._kind(key) == "tokens" and "denied" not in key]
        for token in _piped(server, [("GET", key) for key in pointers]):
            if isinstance(token, str):
                yield f"authorization:token:{token}", "-"

    def _withdraw_ratings(self, server: redis.Redis, keys: Sequence[str], *, delete: bool) -> None:
        """Remove the person's ratings that wait for delivery."""
        fields = [f"{mark}:{person}" for mark in "are" for person in self.person.fingerprints]
        for key in keys:
            if key.startswith("{dify_feedback}:") and not key.endswith(":queue"):
                self.counts["ratings"] += sum(map(bool, server.hmget(key, fields[: len(fields) // 3])))
                if delete:
                    server.hdel(key, *fields)

    def _clear_batches(self, settings: Settings, url: str, *, delete: bool) -> None:
        """Cancel and remove the batches that the person has submitted with a token."""
        owner, running = f"{USER}{self.person.userid}", 0
        with closing(SqlBatchStore(url)) as store:
            tasks, pages = list[str](), count(1)
            while found := store.list(owner, page=next(pages), size=AT_ONCE)[0]:
                tasks += [task.task_id for task in found]
            for task_id in tasks if delete else ():
                with suppress(BatchFinished, BatchUnknown):
                    running += len(store.cancel(task_id, owner)[1])
                with suppress(BatchUnknown):
                    store.purge(task_id, owner)
        self.counts["batches"] += len(tasks)
        if tasks and settings.batch_storage_path:
            names = ", ".join(f"{task_id}.jsonl" for task_id in tasks)
            self.not_reached.append(f"files in BATCH_STORAGE_PATH: {names}")
        time.sleep(ITEM_SECONDS if running else 0.0)

    def _clear_sql(self, url: str, *, delete: bool) -> None:
        with closing(SqlUsageStore(url)) as usage, closing(SqlFeedbackStore(url)) as ratings:
            self.counts["rows"] += usage.forget_log(self.person.userid, delete=delete)
            self.counts["usage"] += usage.forget_usage(self.person.userid, delete=delete)
            self.counts["ratings"] += ratings.forget(sorted(self.person.fingerprints), delete=delete)


def forget(settings: Settings, userid: str, *, delete: bool) -> tuple[Counter[str], list[str]]:
    """Count what there is of a person, and `delete` it; return the counts, and what was not reached.

    Raises:
        SettingsError: the name is empty.
        StoreUnavailable: Redis or SQL is away; a further run continues.
    """
    if not userid.strip():
        raise SettingsError("forget: expected WeCom's userid of a person")
    with closing(Container(settings)) as container:
        eraser = PersonEraser(container, userid)
        eraser.run(settings, delete=delete)
        return eraser.counts, eraser.not_reached


def _pages(keys: Iterable[Any]) -> Iterator[list[str]]:
    page: list[str] = []
    for key in keys:
        page.append(str(key))
        if len(page) == AT_ONCE:
            yield page
            page = []
    yield page


def _piped(server: redis.Redis, commands: Sequence[tuple[str, ...]]) -> list[Any]:
    """Return the replies; an error, as of a key of another type, is a value."""
    if not commands:
        return []
    return ScriptRunner(server).run([Call(None, command) for command in commands], mistyped=True)


def _principal(question: Any) -> str:
    return _member(question, "principal")


def _member(written: Any, name: str) -> str:
    with suppress(ValueError, TypeError, AttributeError):
        return str(json.loads(written).get(name, ""))
    return ""

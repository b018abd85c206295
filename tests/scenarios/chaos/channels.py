"""What people and programs do: the table `CHANNELS`. Each of them asks once, comes back as its documentation says
until there is an end, and returns what it has seen.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import redis
import requests
from websockets.exceptions import WebSocketException

from config.texts import ZH
from demo.mocks.dify.features.asking_back import LEAD, rest
from demo.wecom.bubble import SHRUNK
from demo.wecom.feedback import rates
from demo.wecom.simulator import Bubble, CallbackFailed, RuleBroken, WeComUser
from tests.scenarios.chaos.world import LATE, LONG, PATIENCE, World
from tests.scenarios.stage.chaos_record import stall
from tests.scenarios.stage.people import stored
from tests.scenarios.stage.whole_bot import MARK, is_whole
from tests.support.openai_program import StreamedAnswer
from tests.support.sockets.connecting import connected
from tests.support.sockets.event_reader import events
from tests.support.sockets.visitor import PATHS
from utils.stream_utils import render_frame

#: Seconds between two polls, and for which a client waits for one frame, event or reply before it comes back.
POLL, SILENCE = 0.7, 40.0
#: Seconds until all ratings have reached Dify after the last answer.
RATED = 60.0
#: The rule that replies of a stopped replica break.
IN_TIME = "in time"
#: How often a bubble's text may become shorter before its user gives up: each is counted.
SHRINKS = 50
#: Questions of one batch.
ITEMS = 12
#: Codes with which a request is repeated as it is: nothing was asked.
AGAIN = ("store_unavailable", "service_unavailable", "draining", "http_full", "replica_full", "bodies_full")


@dataclass
class Seen:
    """What was seen of one question."""

    question: str
    #: The whole answer, as the channel shows it.
    wanted: str
    text: str = ""
    #: `completed`, or the code of the sentence at the end; "" while there is no end.
    end: str = ""
    #: How often the text became shorter.
    backwards: int = 0
    #: Longest time in seconds without a change.
    stall: float = 0.0
    #: Returns how often the effect was seen of which there is to be one: a late answer, a push.
    times: Callable[[], int] = lambda: 1
    #: Whether `times` is that of a late answer.
    late: bool = False
    changed: float = field(default_factory=time.monotonic)

    def shows(self, text: str) -> None:
        """Note the text that is shown now."""
        if text != self.text:
            self.backwards += not text.startswith(self.text)
            self.text = text
            self._moved()

    def completes(self, whole: str) -> Seen:
        """Note the end of an answer whose pieces were shown, and whose text was sent as a whole too."""
        return self.ends("completed", whole if self.text == self.wanted else None)

    def ends(self, end: str, text: str | None = None) -> Seen:
        if text is not None:
            self.text = text
        self.end = end
        self._moved()
        return self

    def _moved(self) -> None:
        now = time.monotonic()
        self.stall, self.changed = max(self.stall, now - self.changed), now


#: A person or program of a channel: its number and the number of its question give what it has seen.
Use = Callable[[World, int, int], Seen | list[Seen]]


class Channel(NamedTuple):
    use: Use
    #: How many people or programs use it at once.
    people: int


def question_of(name: str, number: int, turn: int, script: str = "") -> str:
    """Return a question that begins with its name; the provider's calls are counted by it."""
    script = script or ("chatflow", "chat")[number % 2]
    about = ("年假", "报销")[turn % 2]
    return f"{name}-{number}-{turn}：{about}怎么申请？[[{script}]]"


def userid(place: int) -> str:
    """Return one of the users; each channel has its own from a place on."""
    return f"user{place:03}"


# People in WeCom, whose callbacks go to all replicas in turn.


@contextmanager
def person_of(world: World, place: int, bot: str = "") -> Iterator[WeComUser]:
    with world.replicas.person(userid(place), at=place, bot=bot, responses=world.responses) as person:
        person.strict = False
        yield person


def polled(world: World, person: WeComUser, seen: Seen) -> tuple[Seen, Bubble | None]:
    """Ask in WeCom, poll until the bubble is finished, and return it."""
    bubble: Bubble | None = None
    try:
        bubble = person.says(seen.question)
        person.sees_finish(bubble, PATIENCE, POLL, replacements=SHRINKS)
    except (CallbackFailed, RuleBroken, TimeoutError) as exc:
        return (seen if isinstance(exc, TimeoutError) else seen.ends(f"{type(exc).__name__}: {exc}")), bubble
    seen.backwards, seen.stall = bubble.shrunk, stall(bubble)
    seen.end, seen.text = end_of(bubble.content, seen.wanted)
    broken = {str(each) for frame in bubble.frames for each in frame.broken if each.rule not in (SHRUNK, IN_TIME)}
    return (replace(seen, end=f"rules broken: {broken}") if broken else seen), bubble


def end_of(shown: str, wanted: str) -> tuple[str, str]:
    """Return `completed`, or the code of the sentence with which a bubble ends, and the text before it."""
    codes = [code for code, sentence in ZH.items() if sentence and shown.endswith(sentence)]
    if shown == wanted or not codes:
        return "completed", shown
    code = max(codes, key=lambda code: len(ZH[code]))
    return code, shown.removesuffix(ZH[code]).rstrip()


def wecom(world: World, number: int, turn: int) -> Seen:
    """A text, and polls; every third question comes from another person, so that people are authenticated anew."""
    question = question_of("wecom", number, turn)
    seen = Seen(question, render_frame(world.dify.expected_answer(question), growing=False))
    with person_of(world, (number * 10 + turn // 3 % 10) % 800) as person:
        return polled(world, person, seen)[0]


def late(world: World, number: int, turn: int) -> Seen:
    """A question whose frame ends before its answer, and the message that brings the rest."""
    # The answer of an even turn has no block of code, whose fence the message would repeat.
    question = question_of("late", number, 2 * turn, "slow")
    answer = world.dify.expected_answer(question)
    seen = Seen(question, render_frame(answer, growing=False))
    with person_of(world, 800 + number, LATE) as person:
        seen, bubble = polled(world, person, seen)
        if bubble is None or seen.end != "frame_ended_late":
            return seen
        seen.late, seen.times = True, partial(_posts, world, bubble)
        for _ in world.tries():
            if posts := world.responses.of(bubble.msgid):
                if is_whole(answer, bubble, posts[0]):
                    return replace(seen, end="completed", text=seen.wanted)
                end, text = end_of(posts[0].content.removeprefix(MARK), seen.wanted)
                return replace(seen, end=end, text=text)
            if _late_message_lost(world, bubble):
                return replace(seen, end="late message lost")
    return replace(seen, end="")


def _posts(world: World, bubble: Bubble) -> int:
    return len(world.responses.of(bubble.msgid))


def _late_message_lost(world: World, bubble: Bubble) -> bool:
    """Return whether the owner was lost while it sent the message: no other replica may send it."""
    with suppress(redis.RedisError):
        return stored(world.redis, bubble.stream_id).fields.get("delivered", "").startswith("lost")
    return False


def form(world: World, number: int, turn: int) -> Seen:
    """A question that asks back, and the choice, which is sent again when it was not stored."""
    question = question_of("form", number, turn, "form")
    seen = Seen(question, render_frame(rest(question, "同意"), growing=False))
    with person_of(world, 840 + number) as person:
        asked, bubble = polled(world, person, Seen(question, ""))
        if bubble is None or LEAD.split("**")[0] not in bubble.content:
            return asked
        for _ in world.tries(1.0):
            choice, _ = polled(world, person, Seen("1", seen.wanted))
            if choice.end not in AGAIN:
                break
        seen.stall = max(asked.stall, choice.stall)
        return seen.ends(choice.end, choice.text)


def rating(world: World, number: int, turn: int) -> Seen:
    """A question, and a thumb below its answer, which reaches Dify."""
    question = question_of("rating", number, turn)
    seen = Seen(question, render_frame(world.dify.expected_answer(question), growing=False))
    with person_of(world, 880 + number) as person:
        seen, bubble = polled(world, person, seen)
        if bubble is None or seen.end != "completed":
            return seen
        rates(person, bubble, "accurate")
    return seen


def long_connection(world: World, number: int, turn: int) -> Seen:
    """A text to the bot with the long connection; WeCom drops it where nobody is subscribed."""
    question = question_of("long", number, turn)
    seen = Seen(question, render_frame(world.dify.expected_answer(question), growing=False))
    person = world.wecom.user(userid(920 + number))
    asked = person.asks(question)
    if asked.dropped:
        return seen.ends("dropped")
    with suppress(TimeoutError):
        world.wecom.wait_until(lambda: asked.finish or bool(asked.messages), PATIENCE)
        # An answer whose frame was refused is a message of its own.
        shown = asked.content if asked.finish else asked.messages[0].content
        if asked.bubbles:
            seen.stall = stall(asked.bubbles[-1])
        return seen.ends(*end_of(shown, seen.wanted))
    return seen if asked.bubbles else seen.ends("dropped")


# Programs with an API key.


def chat_socket(world: World, number: int, turn: int) -> Seen:
    """A client of /ws/chat: the question until its echo, then a resume at the cursor."""
    question = question_of("chat", number, turn)
    seen, known = Seen(question, world.dify.expected_answer(question)), {"stream_id": "", "cursor": 0}
    for url in world.tries():
        with suppress(OSError, WebSocketException, TimeoutError), _socket(world, number, url, "chat") as frames:
            if known["stream_id"]:
                frames.send({"type": "resume", **known})
            else:
                frames.send({"type": "chat", "content": question, "id": f"{number}-{turn}"})
            for frame in frames:
                match frame:
                    case {"type": "chat", "role": "user", "stream_id": stream_id}:
                        known["stream_id"] = stream_id
                    case {"type": "chat", "role": "assistant", "status": "completed", "content": content}:
                        return seen.completes(content)
                    case {"type": "error", "code": code, "stream_id": _} if code != "STREAM_UNKNOWN":
                        return seen.ends(code.lower())
                    case {"type": "error"}:
                        break
                _follow(frame, seen, known, "chat_delta")
    return seen


def realtime(world: World, number: int, turn: int) -> Seen:
    """A client of /ws/realtime-asr: one final text, then a resume at the cursor."""
    question, session = question_of("realtime", number, turn), f"meeting-{number}-{turn}"
    seen, known = Seen(question, world.dify.expected_answer(question)), {"stream_id": "", "cursor": 0}
    for url in world.tries():
        spoken = False
        with suppress(OSError, WebSocketException, TimeoutError), _socket(world, number, url, "realtime") as frames:
            if known["stream_id"]:
                frames.send({"type": "resume", **known, "session_id": session})
            else:
                spoken = True
                frames.send({"type": "asr_chunk", "text": question, "is_final": True, "session_id": session})
            for frame in frames:
                known["stream_id"] = frame.get("stream_id", known["stream_id"])
                _follow(frame, seen, known, "answer")
                match frame:
                    case {"type": "answer", "final": True}:
                        return seen.ends(str(frame.get("error", "completed")).lower())
                    case {"type": "error", "code": code} if code != "STREAM_UNKNOWN":
                        return seen.ends(code.lower())
        if spoken and not known["stream_id"]:
            # Transcripts have no id: whether this one was heard is unknown.
            return seen.ends("unheard")
    return seen


class _Frames:
    """The frames of a connection, until it ends or is silent for too long."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def send(self, frame: Mapping[str, Any]) -> None:
        self._connection.send(json.dumps(frame, ensure_ascii=False))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while True:
            yield json.loads(self._connection.recv(SILENCE))


@contextmanager
def _socket(world: World, number: int, url: str, endpoint: str) -> Iterator[_Frames]:
    address = url.replace("http", "ws", 1) + PATHS[endpoint] + (f"/phone-{number}" if endpoint == "chat" else "")
    options: dict[str, Any] = {"compression": None, "ping_interval": None, "max_size": 2**24, "close_timeout": 1}
    with connected(address, additional_headers=world.headers(number), open_timeout=SILENCE, **options) as connection:
        try:
            yield _Frames(connection)
        except TimeoutError:
            # Silent: the answer goes on, which an orderly close of a realtime session would cancel.
            connection.socket.close()
            raise


def _follow(frame: Mapping[str, Any], seen: Seen, known: dict[str, Any], piece: str) -> None:
    if "cursor" in frame and frame["type"] in (piece, "reset"):
        known["cursor"] = frame["cursor"]
    if frame["type"] == piece:
        seen.shows(seen.text + str(frame["content"]))
    elif frame["type"] == "reset":
        seen.shows("")


def rest_api(world: World, number: int, turn: int) -> Seen:
    """A client of POST /api/chat: the question until its events begin, then those after the last one."""
    question = question_of("rest", number, turn)
    seen, stream_id, last = Seen(question, world.dify.expected_answer(question)), "", ""
    body = {"query": question, "id": f"{number}-{turn}", "stream": True}
    for url in world.tries():
        with suppress(requests.RequestException, OSError), requests.Session() as http:
            options: dict[str, Any] = {"headers": world.headers(number), "stream": True, "timeout": SILENCE}
            if stream_id:
                options["headers"] |= {"Accept": "text/event-stream", "Last-Event-ID": last}
                reply = http.get(f"{url}/api/chat/{stream_id}", **options)
            else:
                reply = http.post(f"{url}/api/chat", json=body, **options)
            if reply.status_code != 200:
                if (reason := str(reply.json()["data"]["reason"])) in (*AGAIN, "stream_unknown"):
                    continue
                return seen.ends(reason)
            for event in events(line.decode() for line in reply.iter_lines()):
                last = event.id
                match event.name:
                    case "start":
                        stream_id = event.data["stream_id"]
                    case "delta":
                        seen.shows(seen.text + event.data["content"])
                    case "reset":
                        seen.shows("")
                    case "done":
                        content = event.data["content"]
                        return seen.completes(content)
                    case "error" if event.data["data"]["reason"] not in AGAIN:
                        return seen.ends(event.data["data"]["reason"])
    return seen


def openai(world: World, number: int, turn: int) -> Seen:
    """A client of /v1/chat/completions: the same request again with its key."""
    question = question_of("v1", number, turn)
    seen = Seen(question, world.dify.expected_answer(question))
    headers = {**world.headers(number), "Idempotency-Key": f"{number}-{turn}"}
    body = {"model": "default", "messages": [{"role": "user", "content": question}], "stream": True}
    for url in world.tries():
        answer = StreamedAnswer()
        with suppress(requests.RequestException, OSError):
            address = f"{url}/v1/chat/completions"
            # Not silent for long enough to be left: a client that leaves cancels its answer.
            reply = requests.post(address, json=body, headers=headers, stream=True, timeout=PATIENCE)
            code = "" if reply.ok else reply.json()["error"]["code"]
            for line in reply.iter_lines() if reply.ok else ():
                if line.startswith(b"data: {"):
                    answer.chunks.append(json.loads(line[6:]))
                    # It comes again from its first chunk.
                    seen.shows(max(seen.text, answer.content, key=len))
            if answer.finish == "stop":
                return seen.ends("completed", answer.content)
            if answer.chunks:
                code = str(answer.chunks[-1].get("error", {}).get("code", ""))
            if code and code not in AGAIN:
                return seen.ends(code)
    return seen


def batch(world: World, number: int, turn: int, **options: Any) -> list[Seen]:
    """A task of some questions with these options, submitted until it is taken, and looked at until it ends."""
    questions = [question_of(f"batch-{item}", number, turn) for item in range(ITEMS)]
    seen = [Seen(question, world.dify.expected_answer(question)) for question in questions]
    tasks, headers = "api/batch/tasks", world.headers(number)
    key = {**headers, "Idempotency-Key": f"batch-{number}-{turn}"}
    body = {"name": "chaos", "texts": questions, "options": options}
    task = _replied(world, "POST", tasks, 201, headers=key, json=body)
    if task is None:
        return seen
    for _ in world.tries():
        state = _replied(world, "GET", f"{tasks}/{task['task_id']}", 200, headers=headers)
        if state and state["status"] in ("completed", "failed", "cancelled"):
            break
    found = _replied(world, "GET", f"{tasks}/{task['task_id']}/results?size=100", 200, headers=headers)
    for one, result in itertools.zip_longest(seen, found["results"] if found else ()):
        if result and result["status"] == "completed":
            one.text, one.end = result["content"], "completed"
        elif result and result["status"] == "failed":
            one.end = str(result["error"]["code"])
    return seen


def push(world: World, number: int, turn: int) -> Seen:
    """A message to a person of the bot with the long connection."""
    key = f"push-{number}-{turn}"
    text = f"{key}：三点开会"
    seen, person = Seen(text, text), world.wecom.user(userid(1000 + number * 10 + turn % 10))
    # WeCom delivers only into chats in which somebody has written.
    person.chat.written = True
    seen.times = lambda: max(1, [one.content for one in person.chat.messages].count(text))
    body = {"userid": person.userid, "bot": LONG, "markdown": text}
    headers = world.headers(number)
    taken = _replied(world, "POST", "api/push", 202, json=body, headers={**headers, "Idempotency-Key": key})
    for _ in world.tries(1.0) if taken else ():
        state = (_replied(world, "GET", f"api/push/{(taken or {})['id']}", 200, headers=headers) or {}).get("state")
        if state in ("sent", "failed", "unknown", "expired"):
            shown = text in [one.content for one in person.chat.messages]
            return seen.ends("completed" if state == "sent" else f"push {state}", text if shown else "")
    return seen


def _replied(world: World, method: str, path: str, status: int, **options: Any) -> Any:
    """Return the `data` of a reply, asked for until it has this status or 200; None if there is none in time.

    Raises: AssertionError, for a refusal that no repetition changes.
    """
    for url in world.tries():
        with suppress(requests.RequestException):
            reply = requests.request(method, f"{url}/{path}", timeout=SILENCE, **options)
            if reply.status_code in (200, status):
                return reply.json()["data"]
            assert reply.status_code == 429 or reply.status_code >= 500, reply.text
    return None


def ratings_lost(world: World, rated: int) -> int:
    """Wait until Dify has the ratings of so many answers; return how many are missing."""
    end = time.monotonic() + RATED
    while missing := rated - len({message for message, kind, _ in list(world.dify.ratings) if kind == "like"}):
        if missing < 0 or time.monotonic() > end:
            break
        time.sleep(POLL)
    return max(0, missing)


CHANNELS: Mapping[str, Channel] = {
    "wecom": Channel(wecom, 12),
    "late": Channel(late, 3),
    "forms": Channel(form, 3),
    "ratings": Channel(rating, 3),
    "long": Channel(long_connection, 4),
    "pushes": Channel(push, 2),
    "chat": Channel(chat_socket, 6),
    "realtime": Channel(realtime, 4),
    "rest": Channel(rest_api, 6),
    "v1": Channel(openai, 4),
    "batch": Channel(batch, 1),
}

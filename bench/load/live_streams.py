"""Running answers in Redis, written by the product's own store, and polls of their readers."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle

from bench.load.callbacks import AES_KEY, Callbacks
from bench.load.generator import LoadFailed
from config.bots import DEFAULT_BOT
from services.models import Question
from services.redis.store import ScriptRunner, connect
from services.streams.access import Access
from services.streams.records import Chunk, NewStream, timestamp
from services.streams.store import StreamStore
from services.wecom.callback import derive_key

#: Lifetime and lease in seconds, so that nothing expires while they are polled.
LIFETIME = 3600.0
#: Characters of a delta.
DELTA = 20
#: Placeholder of the stream's number in a text, so that no two streams share a sentence.
NUMBER = "0000"
_PROSE = """## 年假怎么申请

员工每年享有 **5 到 15 天**带薪年假，按入职年限计算：

1. 打开企业微信的 `工作台`，选择“假勤管理”；
2. 选择“年假”，填写起止日期和交接人；
3. 直属主管会在一个工作日内审批，结果会通知到您。

- 未休完的年假可以顺延到次年三月底；
- 试用期内的员工按实际出勤折算，详见《员工手册》第四章。

> 如有疑问，请联系人力资源部：hr@example.com。

"""


class LiveStreams:
    """Running answers of equal length, each of a different person."""

    def __init__(self, name: str, size: int, count: int = 256) -> None:
        """Set a name of at most 16 characters that is unique in this Redis, and the bytes of each text.

        No two texts share a line, so that the product cannot reuse what it has rendered for another stream.
        """
        self._name = name
        self._text = prose(size)
        self._count = count

    def write(self, redis_url: str) -> None:
        access = Access({DEFAULT_BOT: derive_key(AES_KEY, "stream")})
        with connect(redis_url, pool_size=1, timeout=5.0) as client:
            store = StreamStore(ScriptRunner(client), ttl=LIFETIME, lease=LIFETIME, max_seconds=LIFETIME)
            for number in range(self._count):
                question = Question("年假怎么申请", "wecom", DEFAULT_BOT, _person(number), msgid=f"m{number}")
                fields = {"status": "processing", "question": question.to_json(), "access": access.readers(question)}
                chunks = in_deltas(self.text(number))
                store.open(NewStream(self._id(number), "bench", fields, chunks, frame_seconds=LIFETIME))

    def text(self, number: int) -> str:
        """Return a stream's text so far."""
        return self._text.replace(NUMBER, f"{number:0{len(NUMBER)}}")

    def polls(self) -> list[bytes]:
        """Return one poll per stream by its reader, signed now: signatures are valid for ten minutes."""
        callbacks = Callbacks()
        return [callbacks.refresh(self._id(number), _person(number)) for number in range(self._count)]

    def check(self, bodies: Mapping[int, bytes]) -> None:
        """Compare the replies to these polls with the texts. Raises: LoadFailed: one is not what its stream shows."""
        callbacks = Callbacks()
        for number, body in bodies.items():
            expected = {"id": self._id(number), "finish": False, "content": self.text(number)}
            try:
                stream = callbacks.opened(body)
            except (ValueError, LookupError) as exc:
                raise LoadFailed(f"{type(exc).__name__}: {body[:200]!r}") from exc
            if stream != expected:
                raise LoadFailed(f"not what the stream shows: {str(stream)[:300]}")

    def _id(self, number: int) -> str:
        return f"{number:016x}{self._name:0>16}"


def prose(size: int) -> str:
    """Return Markdown of exactly this many bytes without repeated lines, padded with full stops."""
    text = ""
    for number, line in enumerate(cycle(_PROSE.splitlines())):
        numbered = f"{line}（{NUMBER}-{number}）\n" if line else "\n"
        if len((text + numbered).encode()) > size:
            break
        text += numbered
    text = text.rstrip()
    return text + "." * (size - len(text.encode()))


def in_deltas(text: str) -> list[Chunk]:
    return [Chunk(text[start : start + DELTA], timestamp()) for start in range(0, len(text), DELTA)]


def _person(number: int) -> str:
    return f"u{number}"

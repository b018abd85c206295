"""People who use all of the bot under load: late answers, photos, pictures of answers, forms, and ratings."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from config.texts import ZH
from demo.mocks.dify.features.asking_back import LEAD, rest
from demo.mocks.dify.server import MockDify
from demo.wecom.feedback import rates
from demo.wecom.simulator import Bubble, ResponsePost, ResponseServer, WeComUser
from tests.scenarios.stage.people import TIMEOUT
from tests.support.pictures import png
from tests.support.servers.processes import wait_until
from tests.support.texts import squeezed
from utils.stream_utils import render_frame

MARK, COMPLETE = "(2/2)\n\n", ZH["late_complete"]
POLL = 0.4


def is_whole(answer: str, bubble: Bubble, post: ResponsePost) -> bool:
    """Return whether frame and late message together are an answer, or the message alone is."""
    wanted = squeezed(render_frame(answer, growing=False))
    shown = bubble.content.removesuffix(ZH["frame_ended_late"])
    late = post.content.removeprefix(MARK)
    return wanted in (squeezed(late), squeezed(shown + late), squeezed(shown + late.removesuffix(COMPLETE)))


class WholeBot:
    """One person for each feature, who uses it again and again until the end of the block.

    Each use checks what the person sees. `wrong` then tells what parties got more or less than once.
    """

    def __init__(self, person: Callable[[str, str], WeComUser], dify: MockDify, responses: ResponseServer) -> None:
        """`person` makes a user of a name and a bot; frames of the bot "late" end long before its answers."""
        self._person = person
        self._dify = dify
        self._responses = responses
        self._over = threading.Event()
        #: Uses by feature.
        self.uses = {"late": 0, "photo": 0, "pictures": 0, "form": 0, "rating": 0}

    @contextmanager
    def running(self) -> Iterator[None]:
        """Use everything during the block, then wait for the last uses.

        Raises: the first error of a person's.
        """
        with ThreadPoolExecutor(len(self.uses)) as pool:
            using = [pool.submit(self._use, feature) for feature in self.uses]
            try:
                yield
            finally:
                self._over.set()
            for future in using:
                future.result(3 * TIMEOUT)

    def wrong(self) -> dict[str, tuple[int, int]]:
        """Return the counts of what the parties got and should have got, where they differ."""
        wait_until(lambda: len({message for message, *_ in self._dify.ratings}) >= self.uses["rating"], TIMEOUT)
        got = {
            "late": len(self._responses.posts),
            "photo": len(self._dify.uploads),
            "form": len(self._dify.forms.submissions),
            "rating": len({message for message, rating, _ in self._dify.ratings if rating == "like"}),
        }
        return {name: (count, self.uses[name]) for name, count in got.items() if count != self.uses[name]}

    def _use(self, feature: str) -> None:
        with self._person(feature, "late" if feature == "late" else "") as person:
            while not self._over.is_set():
                getattr(self, f"_{feature}")(person, self.uses[feature])
                self.uses[feature] += 1

    def _late(self, person: WeComUser, number: int) -> None:
        question = f"第 {number} 个要等很久的问题 [[slow]]"
        bubble = person.says(question)
        person.sees_finish(bubble, TIMEOUT, POLL)
        wait_until(lambda: self._responses.of(bubble.msgid), TIMEOUT)
        (post,) = self._responses.of(bubble.msgid)
        assert is_whole(self._dify.expected_answer(question), bubble, post), (bubble.content, post.content)

    def _photo(self, person: WeComUser, number: int) -> None:
        question = f"第 {number} 张图 [[chatflow]]"
        shown = person.sees_finish(person.sends_mixed(question, png(number + 2)), TIMEOUT, POLL)
        assert squeezed(self._dify.expected_answer(question)) in squeezed(shown)
        assert self._dify.uploads[-1].content == png(number + 2)

    def _pictures(self, person: WeComUser, number: int) -> None:
        bubble = person.says(f"画第 {number} 座房子 [[pictures]]")
        person.sees_finish(bubble, TIMEOUT, POLL)
        assert len(bubble.last.pictures) == 3, bubble.content

    def _form(self, person: WeComUser, number: int) -> None:
        question = f"第 {number} 笔报销 [[form]]"
        assert LEAD.split("**")[0] in person.sees_finish(person.says(question), TIMEOUT, POLL)
        shown = person.sees_finish(person.says("1"), TIMEOUT, POLL)
        assert shown == render_frame(rest(question, "同意"), growing=False)

    def _rating(self, person: WeComUser, number: int) -> None:
        bubble = person.says(f"第 {number} 个问题 [[chat]]")
        person.sees_finish(bubble, TIMEOUT, POLL)
        rates(person, bubble, "accurate")

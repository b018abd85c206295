"""KeptOpening: how long an opening counts, and what is shown while the provider fails."""

from __future__ import annotations

from services.answers.extras import FAILED_SECONDS, KEPT_SECONDS, MAX_QUESTIONS, KeptOpening
from services.errors import ProviderError
from services.providers.base import Opening
from services.providers.mock import MockProvider


class Opened:
    """A provider's opening, which the test changes or breaks, and the clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.asked = 0
        self.says: Opening | Exception = Opening("您好")
        provider = MockProvider()
        provider.opening = self.opening
        self.kept = KeptOpening(provider, clock=lambda: self.now)

    def opening(self) -> Opening:
        self.asked += 1
        if isinstance(self.says, Exception):
            raise self.says
        return self.says

    def shows_after(self, seconds: float) -> Opening:
        self.now += seconds
        return self.kept.current()


def test_an_opening_counts_for_minutes() -> None:
    opened = Opened()

    assert [opened.shows_after(seconds).statement for seconds in (0, KEPT_SECONDS - 1)] == ["您好"] * 2
    opened.says = Opening("早")
    assert (opened.asked, opened.shows_after(1).statement, opened.asked) == (1, "早", 2)


def test_a_provider_that_fails_keeps_its_last_opening() -> None:
    """Also one of a plug-in with a bug; it is asked again soon."""
    opened = Opened()
    opened.shows_after(0)

    for error in (ProviderError("away"), ZeroDivisionError()):
        opened.says = error
        assert opened.shows_after(KEPT_SECONDS).statement == "您好"
        opened.says = Opening("早")
        assert opened.shows_after(FAILED_SECONDS - 1).statement == "您好"
        assert opened.shows_after(1).statement == "早"
        opened.says = Opening("您好")
        opened.shows_after(KEPT_SECONDS)


def test_an_opening_is_bounded() -> None:
    """And its questions are plain lines, each once."""
    opened = Opened()
    opened.says = Opening(" " + "长" * 5000, ("问\n一", "问 一", "", *(f"问{number}" for number in range(20))))

    shown = opened.shows_after(0)

    assert len(shown.statement) == 4000
    assert (shown.questions[:2], len(shown.questions)) == (("问 一", "问0"), MAX_QUESTIONS)

"""Ask a question in the terminal and print the bubble as it grows."""

from __future__ import annotations

import time
from collections.abc import Callable

from config.texts import ZH
from demo.wecom.bubble import names_step, product_placeholders
from demo.wecom.card_clicks import buttons_of
from demo.wecom.long_connection.user import SimulatedUser
from demo.wecom.simulator import Bubble, BubbleFrame

#: WeCom stops polling this many seconds after the question.
POLL_SECONDS = 360.0
#: Keys of the sentences that are part of a normal conversation; all others report an error.
CONVERSATION = (
    *("thinking", "queued", "welcome", "reset_done", "unsupported_message", "empty_question"),
    *("frame_ended", "truncated"),
)


def ask(
    user: SimulatedUser,
    text: str,
    *,
    show: Callable[[str], None] = print,
    every: float = 1.0,
    timeout: float = POLL_SECONDS,
) -> bool:
    """Ask, print every change of the bubble, and return whether it ended with an answer instead of an error sentence.

    Raises:
        CallbackFailed: the gateway did not reply.
        RuleBroken: WeCom would not show the reply.
    """
    show(f"{user.userid}: {text}")
    bubble = user.says(text)
    shown = _print_change("", bubble.last, show)
    frame = bubble.last
    while not frame.finish and frame.at < timeout:
        time.sleep(every)
        frame = user.polls(bubble)
        shown = _print_change(shown, frame, show)
    _print_end(bubble, frame, show)
    return bubble.finish and not ends_in_error(bubble.content)


def ends_in_error(content: str) -> bool:
    """Return whether a bubble ends with one of the product's error sentences; frames have no field for errors."""
    return content.rstrip().endswith(tuple(sentence for key, sentence in ZH.items() if key not in CONVERSATION))


def _print_change(shown: str, frame: BubbleFrame, show: Callable[[str], None]) -> str:
    """Print the text that the frame adds, or the whole text if it replaces the shown one; return the new text."""
    if frame.content == shown:
        return shown
    if frame.content in product_placeholders() or names_step(frame.content):
        added, mark = frame.content, "…"
    elif shown and frame.content.startswith(shown):
        added, mark = frame.content[len(shown) :], "+"
    else:
        added, mark = frame.content, ">"
    first, *rest = added.split("\n")
    show("\n".join([f"{frame.at:6.1f}s {mark} {first}", *(f"{'':10}{line}".rstrip() for line in rest)]))
    return frame.content


def _print_end(bubble: Bubble, frame: BubbleFrame, show: Callable[[str], None]) -> None:
    if card := bubble.card:
        show(f"{'':10}{card['main_title']['title']} [{'] ['.join(buttons_of(card))}]")
    end = "finish" if frame.finish else "no finish: WeCom polls no more"
    show(f"{frame.at:6.1f}s = {end} ({len(bubble.frames)} frames, {frame.size} bytes)")

"""Turn a stream's text into the content of one WeCom frame: fold thinking, render Markdown, cut to size.

Pure functions whose time is linear in the text.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from utils.markdown.wecom import OpenFence, open_fence, render_markdown
from utils.thinking import Passage, Thinking, fold_thinking, has_tags, split_thinking, without_partial_tag

__all__ = [
    "FRAME_BYTES",
    "Composed",
    "answer_text",
    "clip_utf8",
    "compose",
    "fold_thinking",
    "joined",
    "render_frame",
    "render_markdown",
]

#: WeCom's limit of a stream's content, in bytes of UTF-8.
FRAME_BYTES = 20480

#: Thinking takes at most one in THINKING_SHARE bytes of a frame, so that long thinking leaves room for the answer.
THINKING_SHARE = 2

#: Characters that a cut looks back for the start of a grapheme cluster; longer clusters are cut inside.
CLUSTER_CHARACTERS = 32

_BETWEEN = "\n\n"
_TAG_BYTES = len("<think></think>")
_ZWJ = "\u200d"


def is_longer(text: str, max_bytes: int) -> bool:
    """Return whether a text, which may contain lone surrogates, has more than `max_bytes` bytes as UTF-8."""
    # A character has at most four bytes, so most texts need no encoding.
    return len(text) * 4 > max_bytes and len(text.encode("utf-8", "surrogatepass")) > max_bytes


def clip_utf8(text: str, max_bytes: int) -> str:
    """Return the longest beginning of `text` that fits into `max_bytes` of UTF-8.

    Never cuts inside a character, and inside a grapheme cluster (letter with accents, composed emoji) only if nothing
    would be left otherwise.
    """
    whole = text.encode("utf-8", "replace")
    if len(whole) <= max_bytes:
        return whole.decode()
    clipped = whole[: max(0, max_bytes)].decode("utf-8", "ignore")
    end = len(clipped)
    while end > max(0, len(clipped) - CLUSTER_CHARACTERS) and joined(text, end):
        end -= 1
    return clipped if joined(text, end) else clipped[:end] or clipped


def render_frame(
    text: str,
    *,
    max_bytes: int = FRAME_BYTES,
    growing: bool,
    suffix: str = "",
    thinking: Thinking = "show",
    truncated: str = "",
    footnote: str = "",
) -> str:
    """Return the content of one frame, at most `max_bytes`.

    `growing` means that more text will follow: an incomplete tag or fence at the end is held back. `suffix` is a
    sentence after the text (an error, the end of the frame). `truncated` is added when the text had to be cut; room
    for it is reserved while the text grows, so that adding it removes no text that was already shown. `footnote`
    follows a complete text, if all of it fits.
    """
    if growing:
        text = settled(text)
        footnote = ""
    reserved = truncated if growing else footnote
    if not suffix and (plain := _plain_frame(text, max_bytes - _notice_bytes(reserved))):
        return f"{plain}{_BETWEEN}{footnote}" if footnote else plain
    notices = (suffix, truncated, footnote)
    return compose_frame(text, *notices, max_bytes=max_bytes, growing=growing, thinking=thinking)


def compose_frame(
    text: str, suffix: str, truncated: str, footnote: str, *, max_bytes: int, growing: bool, thinking: Thinking
) -> str:
    """Return the frame for a `settled` text. The general case of `render_frame`, without the shortcut."""
    body, cut, _ = compose(text, suffix, truncated, max_bytes=max_bytes, growing=growing, thinking=thinking)
    room = max_bytes - _notice_bytes(suffix)
    free = bool(body) and not growing and not cut and utf8_size(body) + _notice_bytes(footnote) <= room
    sentences = (body, truncated if cut else "", footnote if free else "", suffix)
    return clip_utf8(_BETWEEN.join(filter(None, sentences)), max_bytes)


class Composed(NamedTuple):
    """The part of a text that a frame shows."""

    body: str
    #: Whether some of the text did not fit.
    cut: bool
    #: The answer in `body`: without thinking, and without lines that only close a code fence.
    answer: str


def compose(text: str, suffix: str, truncated: str, *, max_bytes: int, growing: bool, thinking: Thinking) -> Composed:
    """Return how much of a `settled` text is shown in a frame with these sentences; see `render_frame`."""
    parts = _parts(text, thinking, max_bytes // THINKING_SHARE)
    return _composed(parts, suffix, truncated, max_bytes=max_bytes, growing=growing)


def compose_rest(text: str, suffix: str, truncated: str, *, max_bytes: int) -> Composed:
    """Do what `compose` does, for a part of an `answer_text`: a tag in it is no thinking, but a word of the answer.

    The cut before it may have parted the tag from the code that it stands in.
    """
    rendered = Passage(False, [render_markdown(text.encode("utf-8", "replace").decode())])
    parts = [] if rendered.blank else [rendered]
    return _composed(parts, suffix, truncated, max_bytes=max_bytes, growing=False)


def answer_text(text: str) -> str:
    """Return a text as frames show it: rendered, and without the thinking."""
    return _BETWEEN.join(part.text for part in _parts(text, "hide", 0))


def _plain_frame(text: str, room: int) -> str:
    """Return the frame for a text without thinking and open fences that fits uncut, as nearly every poll's does.

    Returns "" for any other text; `compose_frame` gives the same result in three times the time.
    """
    if has_tags(text):
        return ""
    rendered = render_markdown(text.strip("\r\n")).strip("\r\n")
    try:
        fits = len(rendered.encode()) <= room
    except UnicodeEncodeError:
        return ""
    return rendered if fits and not rendered.isspace() and not open_fence(rendered) else ""


def settled(text: str) -> str:
    """Return a growing text without an incomplete tag or fence at its end, whose meaning the next delta decides."""
    return _without_partial_fence(without_partial_tag(text))


def _without_partial_fence(text: str) -> str:
    start = text.rfind("\n") + 1
    return text[:start] if text[start:].strip(" \t") in ("`", "``", "~", "~~") else text


def _parts(text: str, thinking: Thinking, thinking_bytes: int) -> list[Passage]:
    """Return the rendered passages to show, with thinking already cut to `thinking_bytes`."""
    parts: list[Passage] = []
    for part in split_thinking(text.encode("utf-8", "replace").decode()):
        if not part.thinking:
            parts.append(Passage(False, [render_markdown(part.text)]))
        elif thinking == "show":
            head, closer, _ = _fit(render_markdown(part.text), thinking_bytes - _TAG_BYTES)
            thinking_bytes -= utf8_size(head + closer) + _TAG_BYTES
            parts.append(Passage(True, [head, closer]))
    return [part for part in parts if not part.blank]


def _composed(parts: Sequence[Passage], suffix: str, truncated: str, *, max_bytes: int, growing: bool) -> Composed:
    room, reserve = max_bytes - _notice_bytes(suffix), _notice_bytes(truncated)
    kept = _compose(parts, room - reserve, followed=bool(suffix))
    whole = _compose(parts, room, followed=bool(suffix)) if kept.cut else kept
    return (kept if growing or whole.cut else whole)._replace(cut=whole.cut)


def _compose(parts: Sequence[Passage], room: int, *, followed: bool) -> Composed:
    """Return as much of `parts` as fits into `room` bytes; `followed`: a sentence follows."""
    body, answer = "", ""
    for number, part in enumerate(parts):
        between = _BETWEEN if body else ""
        tags = _TAG_BYTES if part.thinking else 0
        head, closer, whole = _fit(part.text, room - utf8_size(body + between) - tags)
        if head and not part.thinking:
            answer += (_BETWEEN if answer else "") + head
        if followed or not whole or number + 1 < len(parts):
            head += closer
        if head:
            body += between + (f"<think>{head}</think>" if part.thinking else head)
        if not whole:
            return Composed(body, True, answer)
    return Composed(body, False, answer)


def _fit(text: str, room: int) -> tuple[str, str, bool]:
    """Return the beginning of `text` that fits, the line that closes its code fence, and whether nothing was cut.

    The closing line always counts towards `room`, so the beginning never gets shorter while the text grows.
    """
    closer = _closer(open_fence(text))
    if utf8_size(text + closer) <= room:
        return text, closer, True
    head = _cut(text, room)
    fence = open_fence(head)
    closer = _closer(fence)
    if fence and utf8_size(head + closer) > room:
        if utf8_size(text[: fence.end] + closer) > room:
            return _cut(text[: fence.start], room), "", False
        head = _cut(text, room - utf8_size(closer))
        # The beginning of a line may close code that the complete line does not close.
        closer = closer if open_fence(head) else ""
    return head, closer, False


def _cut(text: str, max_bytes: int) -> str:
    return _without_partial_fence(clip_utf8(text, max_bytes)).rstrip()


def _closer(fence: OpenFence | None) -> str:
    return "\n" + fence.closer if fence else ""


def _notice_bytes(sentence: str) -> int:
    return utf8_size(_BETWEEN + sentence) if sentence else 0


def utf8_size(text: str) -> int:
    """Return the bytes of a text as UTF-8; a lone surrogate counts as one."""
    return len(text.encode("utf-8", "replace"))


def joined(text: str, index: int) -> bool:
    """Return whether the characters before and after `index` belong to one grapheme cluster."""
    if not 0 < index < len(text):
        return False
    before, after = text[index - 1], text[index]
    if _ZWJ in (before, after) or unicodedata.category(after).startswith("M") or _modifies(ord(after)):
        return True
    return _is_regional(before) and _is_regional(after) and _regional_run(text, index) % 2 == 1


def _modifies(code: int) -> bool:
    """Return whether a code point is a skin tone or a tag character."""
    return 0x1F3FB <= code <= 0x1F3FF or 0xE0020 <= code <= 0xE007F


def _is_regional(character: str) -> bool:
    return 0x1F1E6 <= ord(character) <= 0x1F1FF


def _regional_run(text: str, end: int) -> int:
    """Return the number of regional indicators directly before `end`; two of them make a flag."""
    start = end
    while start > 0 and _is_regional(text[start - 1]):
        start -= 1
    return end - start

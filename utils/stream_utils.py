"""What of a stream's text one WeCom frame shows: folded, rendered, cut to size. Pure functions, linear in the text."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from utils.markdown.wecom import OpenFence, open_fence, render_markdown
from utils.thinking import Part, Thinking, fold_thinking, has_tags, split_thinking, without_partial_tag

__all__ = ["FRAME_BYTES", "clip_utf8", "fold_thinking", "render_frame", "render_markdown"]

#: WeCom's limit of a stream's content, in bytes of UTF-8.
FRAME_BYTES = 20480

#: Thinking takes at most this part of a frame, so that however long a model thinks, its answer is seen.
THINKING_SHARE = 2

#: How far back a cut looks for the beginning of a cluster; longer ones are cut within.
CLUSTER_CHARACTERS = 32

_BETWEEN = "\n\n"
_TAG_BYTES = len("<think></think>")
_ZWJ = "\u200d"


def clip_utf8(text: str, max_bytes: int) -> str:
    """Return the longest beginning of `text` within `max_bytes` of UTF-8.

    Characters are never cut, nor letters from their accents or emoji from their parts, unless nothing would be left.
    """
    whole = text.encode("utf-8", "replace")
    if len(whole) <= max_bytes:
        return whole.decode()
    clipped = whole[: max(0, max_bytes)].decode("utf-8", "ignore")
    end = len(clipped)
    while end > max(0, len(clipped) - CLUSTER_CHARACTERS) and _joined(text, end):
        end -= 1
    return clipped if _joined(text, end) else clipped[:end] or clipped


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
    """Return the whole content of one frame, never more than `max_bytes`.

    `growing` says that more text will follow: half a tag or fence at the end waits for the rest. `suffix` is a sentence
    after the text (an error, the end of the frame), `truncated` one that is added when the text had to be cut. Room for
    `truncated` is kept free while the text grows, so that its appearance takes back nothing already shown. A
    `footnote` comes after a whole text, where there is room for all of it.
    """
    if growing:
        text = settled(text)
        if not suffix and (plain := _plain_frame(text, max_bytes - _notice_bytes(truncated))):
            return plain
    notices = (suffix, truncated, footnote)
    return compose_frame(text, *notices, max_bytes=max_bytes, growing=growing, thinking=thinking)


def compose_frame(
    text: str, suffix: str, truncated: str, footnote: str, *, max_bytes: int, growing: bool, thinking: Thinking
) -> str:
    """Return what `render_frame` does of a settled text, in every case."""
    parts = _parts(text, thinking, max_bytes // THINKING_SHARE)
    room, reserve = max_bytes - _notice_bytes(suffix), _notice_bytes(truncated)
    kept, short = _compose(parts, room - reserve, followed=bool(suffix))
    whole, cut = _compose(parts, room, followed=bool(suffix)) if short else (kept, False)
    body = kept if growing or cut else whole
    free = bool(body) and not growing and not cut and _size(body) + _notice_bytes(footnote) <= room
    sentences = (body, truncated if cut else "", footnote if free else "", suffix)
    return clip_utf8(_BETWEEN.join(filter(None, sentences)), max_bytes)


def _plain_frame(text: str, room: int) -> str:
    """Return the frame of nearly every poll: an answer that thinks nothing, leaves no fence open, and has room enough.

    "" for any other, which takes three times as long; where both can tell, they say the same.
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
    """Return a growing text without what the next delta may turn into something else: half a tag, half a fence."""
    return _without_partial_fence(without_partial_tag(text))


def _without_partial_fence(text: str) -> str:
    start = text.rfind("\n") + 1
    return text[:start] if text[start:].strip(" \t") in ("`", "``", "~", "~~") else text


def _parts(text: str, thinking: Thinking, thinking_bytes: int) -> list[Part]:
    """Return what is to be shown, rendered, the thinking already cut to its share."""
    parts: list[Part] = []
    for part in split_thinking(text.encode("utf-8", "replace").decode()):
        if not part.thinking:
            parts.append(Part(False, [render_markdown(part.text)]))
        elif thinking == "show":
            head, closer, _ = _fit(render_markdown(part.text), thinking_bytes - _TAG_BYTES)
            thinking_bytes -= _size(head + closer) + _TAG_BYTES
            parts.append(Part(True, [head, closer]))
    return [part for part in parts if not part.blank]


def _compose(parts: Sequence[Part], room: int, *, followed: bool) -> tuple[str, bool]:
    """Return as much of `parts` as `room` bytes hold, and whether that is not all; `followed`: by a sentence."""
    body = ""
    for number, part in enumerate(parts):
        between = _BETWEEN if body else ""
        tags = _TAG_BYTES if part.thinking else 0
        head, closer, whole = _fit(part.text, room - _size(body + between) - tags)
        if followed or not whole or number + 1 < len(parts):
            head += closer
        if head:
            body += between + (f"<think>{head}</think>" if part.thinking else head)
        if not whole:
            return body, True
    return body, False


def _fit(text: str, room: int) -> tuple[str, str, bool]:
    """Return the beginning of `text` that fits, what closes its code fence (it fits too), and whether it is all.

    With room for the closer always counted, the beginning only gets longer as the text does.
    """
    closer = _closer(open_fence(text))
    if _size(text + closer) <= room:
        return text, closer, True
    head = _cut(text, room)
    fence = open_fence(head)
    closer = _closer(fence)
    if fence and _size(head + closer) > room:
        if _size(text[: fence.end] + closer) > room:
            return _cut(text[: fence.start], room), "", False
        head = _cut(text, room - _size(closer))
    return head, closer, False


def _cut(text: str, max_bytes: int) -> str:
    return _without_partial_fence(clip_utf8(text, max_bytes)).rstrip()


def _closer(fence: OpenFence | None) -> str:
    return "\n" + fence.closer if fence else ""


def _notice_bytes(sentence: str) -> int:
    return _size(_BETWEEN + sentence) if sentence else 0


def _size(text: str) -> int:
    return len(text.encode("utf-8", "replace"))


def _joined(text: str, index: int) -> bool:
    """Return whether the characters on both sides of `index` are shown as one."""
    if not 0 < index < len(text):
        return False
    before, after = text[index - 1], text[index]
    if _ZWJ in (before, after) or unicodedata.category(after).startswith("M") or _modifies(ord(after)):
        return True
    return _is_regional(before) and _is_regional(after) and _regional_run(text, index) % 2 == 1


def _modifies(code: int) -> bool:
    """Return whether it is a skin tone or a tag character."""
    return 0x1F3FB <= code <= 0x1F3FF or 0xE0020 <= code <= 0xE007F


def _is_regional(character: str) -> bool:
    return 0x1F1E6 <= ord(character) <= 0x1F1FF


def _regional_run(text: str, end: int) -> int:
    """Return how many regional indicators, two of which make a flag, stand right before `end`."""
    start = end
    while start > 0 and _is_regional(text[start - 1]):
        start -= 1
    return end - start

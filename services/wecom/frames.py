"""Renders answers for WeCom: the content of a frame, and the late message with the part that the frame did not show.

The results depend on a snapshot and the settings alone: every replica shows the same, and the owner of a stream can
compute what its readers see.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import NamedTuple

from config.texts import Texts
from services.files.answer_store import StoredFile
from services.files.shown import FileOffers
from services.streams.records import Snapshot
from services.streams.store import READ_BYTES
from services.wecom.cards import Card, CardChoice, ChosenCard, free_card, parted, without_block, without_shown_block
from utils.markdown.late_text import AnswerParts, Rest, numbered_parts, rest_of, second_part
from utils.markdown.pictures import in_words
from utils.stream_utils import FRAME_BYTES, answer_text, compose, render_frame
from utils.thinking import Thinking, fold_thinking

#: Mark of a late message; the sentences `frame_ended_late` and `truncated_late` begin with "(1/2)".
MARK = "(2/2)"
#: Rendering at most doubles a text (blank lines), and adds sentences, tags and closing lines of fewer bytes than this.
SMALL_BYTES = FRAME_BYTES // 2 - 1024
#: Messages' sizes of an answer that are rendered beyond its messages, because words replace the addresses of pictures;
#: and the most lines. An answer that is longer ends with a link to all of it.
CARRIED, MOST_LINES = 4, 5_000
_LINE_FEED = re.compile("\n")


@dataclass(frozen=True, slots=True)
class EndedAnswer:
    """An answer at its end, for its late message."""

    #: The full text.
    text: str
    #: The snapshot that its readers see; None if the last poll is unknown.
    snapshot: Snapshot | None
    error_code: str = ""
    #: The sources as a few lines of Markdown.
    cited: str = ""
    #: As `Snapshot.note`.
    note: str = ""
    stream_id: str = ""
    #: Its pictures and files.
    files: tuple[StoredFile, ...] = ()
    #: The sentence with a link to the full text; "" without a link.
    full_text_link: str = ""
    #: Whether there was a frame; without one the person gets the message alone.
    framed: bool = True


class _Left(NamedTuple):
    """The part of an answer that readers do not see: its text, the sentences after it, and whether the text goes on."""

    rest: Rest
    ending: str
    more: bool


class WeComFrames:
    """Renders the answers of all bots."""

    def __init__(
        self,
        texts: Texts,
        offers: FileOffers,
        *,
        thinking: Mapping[str, Thinking],
        sources: Collection[str] = (),
        parts: int = 0,
    ) -> None:
        """`thinking` has each bot's mode by its name; `sources` are the bots that list an answer's sources.

        `parts`: the rest of an answer follows in up to so many messages, its pictures and files in others (the long
        connection); 0: all of it in a late message.
        """
        self._texts = texts
        self._offers = offers
        self._thinking = thinking
        self._sources = sources
        self._parts = parts
        self._cards = CardChoice(texts)

    def content(self, bot: str, snapshot: Snapshot, files: Sequence[StoredFile] = (), *, single: bool = False) -> str:
        """Return the content of a snapshot's frame; `files` are those of an answer that has ended in time.

        Suggestions that are on its card, as in a `single` chat, are not listed.
        """
        chosen = self._chosen(snapshot, single=single)
        snapshot = self._worded(snapshot)
        sources, suggestions = ("", "") if _beyond(snapshot) else self._footnotes(bot, snapshot)
        suggestions = "" if chosen and chosen.kind == "suggestions" else suggestions
        footnote = _paragraphs(sources, suggestions)
        content = self._rendered(bot, snapshot, footnote, files)
        if suggestions and footnote not in content:
            # The sources may fit alone.
            content = self._rendered(bot, snapshot, sources, files)
        if not content and files and is_over(snapshot):
            return self._texts.get("picture_unnamed")
        if not content and chosen:
            return self._texts.get("card_below")
        return content or self._placeholder(snapshot, is_over(snapshot))

    def card(self, snapshot: Snapshot, *, single: bool) -> Card | None:
        """Return the template card that goes with a finished frame in a `single` chat or a group; None for none."""
        chosen = self._chosen(snapshot, single=single)
        return chosen.card if chosen else None

    def app_card(self, stream_id: str, text: str) -> Card | None:
        """Return the card that the app wrote into an answer's full text; None for none."""
        block = parted(text, growing=False).card
        return free_card(stream_id, block) if block else None

    def _chosen(self, snapshot: Snapshot, *, single: bool) -> ChosenCard | None:
        return self._cards.of(snapshot, cut=_may_continue(snapshot), single=single) if is_over(snapshot) else None

    def _rendered(self, bot: str, snapshot: Snapshot, footnote: str, files: Sequence[StoredFile]) -> str:
        return render_frame(
            snapshot.text,
            growing=not is_over(snapshot),
            suffix=self._suffix(snapshot, files),
            thinking=self._thinking[bot],
            truncated=self._truncated(snapshot),
            footnote=footnote,
        )

    def overflows(
        self, bot: str, text: str, error_code: str, *, stream_id: str = "", files: Sequence[StoredFile] = ()
    ) -> bool:
        """Return whether the frame of an answer that ends now shows only a part of it."""
        size = len(text.encode("utf-8", "replace"))
        if size <= SMALL_BYTES and not files and "](" not in text:
            return False
        # Only a frame with a late message has a card in the place of its block.
        frame = ended(text, error_code, late=not self._parts, stream_id=stream_id)
        return size > READ_BYTES or self._seen(bot, frame, files)[0]

    def late_message(self, bot: str, answer: EndedAnswer) -> str:
        """Return the message with the part of an answer that readers do not see: all of it, or the rest."""
        left = self._left(bot, answer)
        sources, suggestions = self._footnotes_of(bot, answer)
        footnote = _paragraphs(sources, suggestions)
        truncated = answer.full_text_link or self._texts.get("late_truncated")
        mark = MARK if answer.framed else ""
        composed = partial(second_part, left.rest, mark=mark, ending=left.ending, truncated=truncated, more=left.more)
        message = composed(footnote=footnote)
        return composed(footnote=sources) if suggestions and footnote not in message else message

    def further_messages(self, bot: str, answer: EndedAnswer) -> AnswerParts:
        """Return numbered messages with the part of an answer that readers do not see; none if they see all of it."""
        seen = answer.snapshot
        sizes = (bot, answer.text, answer.error_code)
        if seen and not seen.frame_over and not self.overflows(*sizes, stream_id=answer.stream_id, files=answer.files):
            return AnswerParts([])
        left = self._left(bot, answer)
        ending = _paragraphs(*self._footnotes_of(bot, answer), left.ending)
        truncated = answer.full_text_link or self._texts.get("late_truncated")
        shown = 1 if seen else 0
        return numbered_parts(left.rest, ending, shown=shown, most=self._parts, truncated=truncated, more=left.more)

    def _left(self, bot: str, answer: EndedAnswer) -> _Left:
        """Return the part of an answer that readers do not see; only as much as messages carry is rendered."""
        seen = answer.snapshot
        text = fold_thinking(self._beside_card(answer.text, seen), "hide")
        end = self._carried(text)
        full = answer_text(self._in_words(text[:end], cut=False))
        rest = rest_of(full, self._seen(bot, seen, answer.files)[1]) if seen else Rest(full)
        sentence = answer.note or self._texts.error(answer.error_code) if answer.error_code else ""
        if not (rest.text or sentence):
            sentence = self._texts.get("late_complete") if full else self._without_text(answer.text)
        in_frame = seen and not seen.frame_over
        files = "" if in_frame else self._offered(answer.stream_id, answer.files, pictures=True)
        return _Left(rest, _paragraphs(files, sentence), more=end < len(text))

    def _carried(self, text: str) -> int:
        """Return the end of the part of an answer that a frame and the messages after it may carry."""
        end = min(len(text), (CARRIED + max(1, self._parts)) * FRAME_BYTES)
        if text.count("\n", 0, end) > MOST_LINES:
            end = max(READ_BYTES, next(islice(_LINE_FEED.finditer(text), MOST_LINES, None)).start())
        return end

    def _beside_card(self, text: str, seen: Snapshot | None) -> str:
        """Return an answer's full text beside its card, which is in the frame or, with `parts`, a message."""
        if self._parts:
            return parted(text, growing=False).text
        return without_shown_block(text, seen, cut=seen is not None and _may_continue(seen))

    def _without_text(self, text: str) -> str:
        """Return the sentence for an answer without text, with or without a card."""
        return (
            self._texts.get("card_below") if parted(text, growing=False).card else self._texts.error("provider_empty")
        )

    def _footnotes_of(self, bot: str, answer: EndedAnswer) -> tuple[str, str]:
        shown = Snapshot("", "error" if answer.error_code else "completed", cited=answer.cited, note=answer.note)
        return self._footnotes(bot, shown)

    def _worded(self, snapshot: Snapshot) -> Snapshot:
        """Return a snapshot without its card's block, with words for its pictures, and without an incomplete end."""
        cut = _may_continue(snapshot)
        snapshot = without_block(snapshot, cut=cut)
        text = self._in_words(snapshot.text, cut=cut)
        return snapshot if text is snapshot.text else replace(snapshot, text=text)

    def _in_words(self, text: str, *, cut: bool) -> str:
        return in_words(text, self._offers.words, growing=cut)

    def _seen(self, bot: str, snapshot: Snapshot, files: Sequence[StoredFile]) -> tuple[bool, str]:
        """Return whether a finished frame is cut, and the part of the answer that it shows."""
        snapshot = self._worded(snapshot)
        seen = compose(
            snapshot.text,
            self._suffix(snapshot, files),
            self._truncated(snapshot),
            max_bytes=FRAME_BYTES,
            growing=False,
            thinking=self._thinking[bot],
        )
        return seen.cut, seen.answer

    def _truncated(self, snapshot: Snapshot) -> str:
        """Return the sentence for a text that `render_frame` has to cut."""
        return "" if _beyond(snapshot) else self._cut_sentence(snapshot)

    def _cut_sentence(self, snapshot: Snapshot) -> str:
        if self._parts:
            return self._texts.get("truncated_parts")
        return self._texts.get("truncated_late" if snapshot.late else "truncated")

    def _suffix(self, snapshot: Snapshot, files: Sequence[StoredFile]) -> str:
        """Return the sentences after the text and the links to its files, "" for none."""
        beyond = self._cut_sentence(snapshot) if _beyond(snapshot) else ""
        ended = is_over(snapshot) and not snapshot.frame_over
        offered = self._offered(snapshot.stream_id, files, pictures=False) if ended else ""
        return "\n\n".join(filter(None, (beyond, offered, self._ending(snapshot))))

    def _offered(self, stream_id: str, files: Sequence[StoredFile], *, pictures: bool) -> str:
        """Return links to files; with `parts` to the missing ones alone, because the others follow as messages."""
        listed = [stored for stored in files if stored.is_missing] if self._parts else files
        return self._offers.lines(stream_id, listed, pictures=pictures)

    def _ending(self, snapshot: Snapshot) -> str:
        if snapshot.frame_over and self._parts:
            return self._texts.get("frame_ended_parts")
        if snapshot.frame_over:
            return self._texts.get("frame_ended_late" if snapshot.late else "frame_ended")
        return snapshot.note or self._texts.error(snapshot.error_code) if snapshot.error_code else ""

    def _footnotes(self, bot: str, snapshot: Snapshot) -> tuple[str, str]:
        """Return the lists of sources and of suggested questions of a completed answer, each "" for none."""
        if snapshot.status != "completed" or snapshot.frame_over:
            return "", ""
        sources = snapshot.cited if bot in self._sources else ""
        suggestions = "\n".join(f"- {question}" for question in snapshot.note.split("\n") if question)
        return self._under("sources_heading", sources), self._under("suggestions_heading", suggestions)

    def _under(self, heading: str, lines: str) -> str:
        return f"{self._texts.get(heading)}\n\n{lines}" if lines else ""

    def _placeholder(self, snapshot: Snapshot, finish: bool) -> str:
        """Return the sentence shown while there is no visible text, e.g. when all of it is hidden thinking."""
        if finish:
            return self._texts.error("provider_empty")
        if snapshot.note and not snapshot.waiting:
            return self._texts.get("step", step=snapshot.note)
        return self._texts.get("queued" if snapshot.waiting else "thinking")


def _paragraphs(*parts: str) -> str:
    return "\n\n".join(filter(None, parts))


def ended(text: str, error_code: str, *, late: bool = True, stream_id: str = "") -> Snapshot:
    """Return the snapshot that a poll reads of an answer that ended in time with this text."""
    encoded = text.encode("utf-8", "replace")
    read = encoded[:READ_BYTES].decode("utf-8", "ignore")
    status = "error" if error_code else "completed"
    return Snapshot(stream_id, status, error_code, text=read, size=len(encoded), late=late)  # type: ignore[arg-type]


def is_over(snapshot: Snapshot) -> bool:
    """Return whether a snapshot's frame is finished."""
    return snapshot.status != "processing" or snapshot.frame_over


def _may_continue(snapshot: Snapshot) -> bool:
    """Return whether the answer has, or may get, more text than the snapshot."""
    return not is_over(snapshot) or snapshot.frame_over or _beyond(snapshot)


def _beyond(snapshot: Snapshot) -> bool:
    """Return whether the text is longer than the part that was read.

    The store returns only the first READ_BYTES of a long text. Without the hidden thinking they may fit into the frame,
    and `render_frame` would not add the sentence for a cut.
    """
    return is_over(snapshot) and not snapshot.frame_over and snapshot.size > READ_BYTES

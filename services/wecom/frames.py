"""What people see of an answer in WeCom: the content of a frame, and the late message with what the frame did not show.

Pure functions of a snapshot and the settings: every replica shows the same, and the owner of a stream knows what its
readers see.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from config.texts import Texts
from services.streams.records import Snapshot
from services.streams.store import READ_BYTES
from utils.markdown.late_text import Rest, rest_of, second_part
from utils.stream_utils import FRAME_BYTES, answer_text, compose, render_frame
from utils.thinking import Thinking

#: Mark of a late message; the sentences `frame_ended_late` and `truncated_late` begin with "(1/2)".
MARK = "(2/2)"
#: Rendering at most doubles a text (blank lines), and adds sentences, tags and closing lines of fewer bytes than this.
SMALL_BYTES = FRAME_BYTES // 2 - 1024


@dataclass(frozen=True, slots=True)
class EndedAnswer:
    """An answer at its end, for its late message."""

    #: The whole text.
    text: str
    #: What readers see of it; None if the last poll is unknown.
    snapshot: Snapshot | None
    error_code: str = ""
    #: The sources as a few lines of Markdown.
    cited: str = ""
    #: The suggested questions, one per line.
    suggested: str = ""


class WeComFrames:
    """Renders the answers of all bots."""

    def __init__(self, texts: Texts, *, thinking: Mapping[str, Thinking], sources: Collection[str] = ()) -> None:
        """`thinking` has each bot's mode by its name; `sources` are the bots that list an answer's sources."""
        self._texts = texts
        self._thinking = thinking
        self._sources = sources

    def content(self, bot: str, snapshot: Snapshot) -> str:
        """Return the content of a snapshot's frame."""
        sources, suggestions = ("", "") if _beyond(snapshot) else self._footnotes(bot, snapshot)
        footnote = _paragraphs(sources, suggestions)
        content = self._rendered(bot, snapshot, footnote)
        if suggestions and footnote not in content:
            # The sources may fit alone.
            content = self._rendered(bot, snapshot, sources)
        return content or self._placeholder(snapshot, is_over(snapshot))

    def _rendered(self, bot: str, snapshot: Snapshot, footnote: str) -> str:
        return render_frame(
            snapshot.text,
            growing=not is_over(snapshot),
            suffix=self._suffix(snapshot),
            thinking=self._thinking[bot],
            truncated=self._truncated(snapshot),
            footnote=footnote,
        )

    def overflows(self, bot: str, text: str, error_code: str) -> bool:
        """Return whether the frame of an answer that ends now shows only a part of it."""
        size = len(text.encode("utf-8", "replace"))
        if size <= SMALL_BYTES:
            return False
        return size > READ_BYTES or self._seen(bot, ended(text, error_code))[0]

    def late_message(self, bot: str, answer: EndedAnswer) -> str:
        """Return the message with what readers do not see of an answer: only the rest, if they see its beginning."""
        whole = answer_text(answer.text)
        rest = rest_of(whole, self._seen(bot, answer.snapshot)[1]) if answer.snapshot else Rest(whole)
        sentence = self._texts.error(answer.error_code) if answer.error_code else ""
        if not (rest.text or sentence):
            sentence = self._texts.get("late_complete") if whole else self._texts.error("provider_empty")
        shown = Snapshot("", "error" if answer.error_code else "completed", cited=answer.cited, note=answer.suggested)
        sources, suggestions = self._footnotes(bot, shown)
        footnote = _paragraphs(sources, suggestions)
        truncated = self._texts.get("late_truncated")
        message = second_part(rest, mark=MARK, footnote=footnote, ending=sentence, truncated=truncated)
        if suggestions and footnote not in message:
            return second_part(rest, mark=MARK, footnote=sources, ending=sentence, truncated=truncated)
        return message

    def _seen(self, bot: str, snapshot: Snapshot) -> tuple[bool, str]:
        """Return whether a finished frame is cut, and the part of the answer that it shows."""
        seen = compose(
            snapshot.text,
            self._suffix(snapshot),
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
        return self._texts.get("truncated_late" if snapshot.late else "truncated")

    def _suffix(self, snapshot: Snapshot) -> str:
        """Return the sentences after the text, "" for none."""
        beyond = self._cut_sentence(snapshot) if _beyond(snapshot) else ""
        return "\n\n".join(filter(None, (beyond, self._ending(snapshot))))

    def _ending(self, snapshot: Snapshot) -> str:
        if snapshot.frame_over:
            return self._texts.get("frame_ended_late" if snapshot.late else "frame_ended")
        return self._texts.error(snapshot.error_code) if snapshot.error_code else ""

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


def ended(text: str, error_code: str, *, late: bool = True) -> Snapshot:
    """Return what a poll reads of an answer that has ended in time with this text."""
    whole = text.encode("utf-8", "replace")
    read = whole[:READ_BYTES].decode("utf-8", "ignore")
    status = "error" if error_code else "completed"
    return Snapshot("", status, error_code, text=read, size=len(whole), late=late)  # type: ignore[arg-type]


def is_over(snapshot: Snapshot) -> bool:
    """Return whether a snapshot's frame is finished."""
    return snapshot.status != "processing" or snapshot.frame_over


def _beyond(snapshot: Snapshot) -> bool:
    """Return whether the text goes on after the part that was read.

    The store returns only the first READ_BYTES of a long text. Without the hidden thinking this may fit into the frame,
    and `render_frame` would not notice the cut.
    """
    return is_over(snapshot) and not snapshot.frame_over and snapshot.size > READ_BYTES

"""Makes the text of a question from a message's words, the words that it quotes, and its files."""

from __future__ import annotations

from services.wecom.message import Message

#: The types that consist of words, or may: without any they are empty, and no type that cannot be read.
_WORDED = ("text", "voice", "mixed")
#: The most files of one message, those of its quote included.
MOST_FILES = 10


def is_readable(message: Message) -> bool:
    """Return whether there is anything to ask about, or a type that may have words."""
    return message.msgtype in _WORDED or bool(message.media or message.quoted_media or message.quoted.strip())


def question_text(message: Message, media_question: str) -> str:
    """Return the question's text: quoted words as a Markdown quotation, then the person's own.

    Files without own words ask `media_question`. A quotation without own words and files is the question itself: in a
    group a message may be a mention only.
    """
    words, quoted = message.text, message.quoted.strip()
    if not words.strip():
        if not (message.media or message.quoted_media):
            return quoted
        words = media_question
    return f"{_quotation(quoted)}\n\n{words}" if quoted else words


def _quotation(words: str) -> str:
    return "\n".join(f"> {line}".rstrip() for line in words.splitlines())

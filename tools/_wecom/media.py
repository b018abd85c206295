"""Makes messages with a file, and serves the file encrypted as WeCom's store does."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import click

from demo.wecom.media_messages import text_message, voice_message
from demo.wecom.media_store import MediaStore

KINDS = ("image", "file", "video")


class SentMedia:
    """The file of a message, at the address of another store or served by this process."""

    def __init__(self, kind: str, path: Path, url: str, aes_key: str) -> None:
        """`url` is the address of the encrypted file, "" to serve `path` on a free port of the loopback interface.

        Raises:
            click.UsageError: the file cannot be read.
        """
        self._kind = kind
        self._store = None if url else MediaStore()
        self.url = url
        if self._store:
            name = path.name if kind == "file" else ""
            try:
                self.url = self._store.put(path.read_bytes(), aes_key, name=name)
            except OSError as exc:
                self._store.close()
                raise click.UsageError(f"{path}: {exc.strerror}") from exc

    @property
    def is_served(self) -> bool:
        """Whether this process has to serve the file until the answer is complete."""
        return self._store is not None

    @property
    def serving(self) -> AbstractContextManager[object]:
        return self._store or nullcontext()

    def message(self, words: str) -> dict[str, Any]:
        """Return the message of the file; words and a picture are a mixed message."""
        message = {"msgtype": self._kind, self._kind: {"url": self.url}}
        return {"msgtype": "mixed", "mixed": {"msg_item": [text_message(words), message]}} if words else message


def media_of(options: dict[str, Any], question: str, aes_key: str) -> SentMedia | None:
    """Return the file that the options name, None for none.

    Raises:
        click.UsageError: WeCom has no such message, or the file cannot be read.
    """
    given = [kind for kind in KINDS if options[kind]]
    if len(given) > 1 or (given and options["voice"]):
        raise click.UsageError("one of --image, --file, --video and --voice at a time")
    if not given:
        if options["media_url"]:
            raise click.UsageError("--media-url needs --image, --file or --video, which tell the type of the message")
        return None
    (kind,) = given
    if question and kind != "image":
        raise click.UsageError(f"a message of type {kind} has no words in WeCom; only --image goes with a question")
    return SentMedia(kind, Path(options[kind]), options["media_url"], aes_key)


def spoken(question: str) -> dict[str, Any]:
    """Return a voice message with its transcribed words.

    Raises:
        click.UsageError: there are none.
    """
    if not question:
        raise click.UsageError("--voice needs a question: the words as WeCom transcribed them")
    return voice_message(question)

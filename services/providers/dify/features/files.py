"""Reads the pictures and files of Dify's answers: `message_file` events, and the `files` of `message_end`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from services.attachments import AnswerFile
from services.providers.client.json_fields import text


def answer_files(items: Iterable[Mapping[str, Any]]) -> tuple[AnswerFile, ...]:
    """Return the files that the app made; those that came with the question are left out."""
    return tuple(_read(item) for item in items if _address(item) and _is_answer(item))


def _read(item: Mapping[str, Any]) -> AnswerFile:
    is_picture = text(item.get("type")) == "image" or text(item.get("mime_type")).startswith("image/")
    return AnswerFile(_address(item), text(item.get("filename")), is_picture)


def _address(item: Mapping[str, Any]) -> str:
    return text(item.get("url")) or text(item.get("remote_url"))


def _is_answer(item: Mapping[str, Any]) -> bool:
    belongs_to = text(item.get("belongs_to"))
    # `message_end` lists a person's uploads too, without saying whose they are: these are local files.
    return belongs_to == "assistant" or (not belongs_to and text(item.get("transfer_method")) != "local_file")

"""`python -m tools.dify`: ask a Dify app as the product does, and see all that it says.

    python -m tools.dify -q 年假怎么申请                        the answer as it comes, then its cost, ids and sources
    python -m tools.dify -q 病假呢 --conversation-id 3f0a8a52-… the next turn of a conversation
    python -m tools.dify --list-conversations --user zhangsan   somebody's conversations, the latest first
    python -m tools.dify --check                                stream, blocking, two turns, list: a line each

The key comes from DIFY_API_KEY, else from a hidden prompt, and by `--api-key -` from standard input; it is not printed.
Exit status: 0 answered, 1 not and standard error says what to do, 2 wrong usage or no key; Dify is told to stop when
it is interrupted (130) or nobody reads its output any more (141).
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from functools import partial
from typing import Any

from services.errors import ProviderError
from tools._dify_check import check
from tools._dify_failures import sentence
from tools._dify_options import read_options
from tools._dify_page import Page
from tools._dify_talk import Talk
from tools._pipes import until_nobody_reads

#: Asked by --check when there is no --query.
HELLO = "你好"


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the options say; return the exit status."""
    _never_fail_to_print()
    try:
        options = read_options(argv)
        page = Page(partial(print, end="", flush=True), key=options.key)
        shown = Page(lambda text: None) if options.check else page
        with closing(_talk(options, shown)) as talk:
            return _run(options, talk, page)
    except KeyboardInterrupt:
        return 130


def _never_fail_to_print() -> None:
    """Let a terminal of few characters show what it cannot as question marks."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _talk(options: argparse.Namespace, page: Page) -> Talk:
    return Talk(options.base_url, page, key=options.key, user=options.user, timeout=options.timeout)


def _run(options: argparse.Namespace, talk: Talk, page: Page) -> int:
    errors = Page(partial(print, end="", flush=True, file=sys.stderr), key=options.key)
    try:
        if options.check:
            return _check(options, talk, page)
        if options.list_conversations:
            talk.conversations()
        else:
            _announce(options, talk, page)
            talk.ask(_body(options, "blocking" if options.blocking else "streaming", options.conversation_id))
    except KeyboardInterrupt:
        # Pressed again, it ends at once.
        with suppress(KeyboardInterrupt):
            errors.line(f"interrupted: {talk.stop()}")
        return 130
    except BrokenPipeError:
        # Nobody reads the answer, so that Dify need not go on with it.
        talk.stop()
        raise
    except ProviderError as exc:
        errors.line(sentence(exc, talk.scene(exc)))
        return 1
    return 0


def _check(options: argparse.Namespace, talk: Talk, page: Page) -> int:
    page.line(f"{talk.urls.root}, user {options.user}")
    failed = 0
    for finding in check(talk, partial(_body, options)):
        page.line(str(finding))
        failed += finding.outcome == "failed"
    return 1 if failed else 0


def _announce(options: argparse.Namespace, talk: Talk, page: Page) -> None:
    page.line(f"POST {talk.urls.chat}, {'blocking' if options.blocking else 'streaming'}")
    page.field("user", options.user)
    page.field("conversation", options.conversation_id or "a new one")
    for name in ("inputs", "files"):
        if value := getattr(options, name):
            page.field(name, json.dumps(value, ensure_ascii=False))
    page.field("question", options.query)
    page.line()


def _body(options: argparse.Namespace, mode: str, conversation_id: str) -> Mapping[str, Any]:
    body = {
        "query": options.query or HELLO,
        "inputs": options.inputs,
        "user": options.user,
        "response_mode": mode,
        "auto_generate_name": not options.no_auto_name,
    }
    # Dify 1.11.0 refuses an empty id.
    named = {"conversation_id": conversation_id} if conversation_id else {}
    return body | named | ({"files": options.files} if options.files else {})


if __name__ == "__main__":
    sys.exit(until_nobody_reads(main))

"""`python -m tools.dify`: asks a Dify app as the product does, and prints everything it sends.

    python -m tools.dify -q 年假怎么申请                        the answer as it arrives, then cost, ids and sources
    python -m tools.dify -q 病假呢 --conversation-id 3f0a8a52-… the next turn of a conversation
    python -m tools.dify --list-conversations --user zhangsan   the conversations of a user, latest first
    python -m tools.dify --check                                stream, blocking, two turns, list: one line each

Standard output has the answer, the list or the check alone, with --json as JSON; the request, steps, cost, ids and
sources are on standard error. The key comes from DIFY_API_KEY, else from a hidden prompt; `--api-key -` reads it from
standard input. It is never printed. Exit status: 0 answered; 1 failed, standard error says what to do; 2 wrong usage or
no key; 130 interrupted; 141 the reader of the output closed the pipe. In the last two cases the run is stopped in Dify.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import click

from config.errors import SettingsError
from services.errors import ProviderError
from services.providers.dify.service import DifyUrls
from tools._command import INTERRUPTED, json_object, key_from_stdin, run, seconds
from tools._dify.failures import Failure
from tools._dify.talk import DifyTalk
from tools._doctor.checks import Finding
from tools._page import Printer, printer_on
from tools._pipes import until_nobody_reads

CLOUD = "https://api.dify.ai/v1"
#: The question of --check without --query.
HELLO = "你好"
STATUS = "Exit status: 0 answered, 1 not, 2 wrong usage or no key, 130 interrupted."
MISSING_KEY = (
    "no API key: set DIFY_API_KEY in the environment to the app's key (in Dify: the app's page API Access, app-...; "
    ".env is not read), or give --api-key - and the key on standard input"
)
SEEN_KEY = (
    "warning: a key on the command line is seen by everybody on this machine and kept in the shell's history; "
    "set DIFY_API_KEY instead, or give --api-key - and the key on standard input"
)


def _address(url: str) -> str:
    try:
        DifyUrls.build(url)
    except SettingsError as exc:
        raise ValueError(str(exc)) from exc
    if "@" in urlsplit(url).netloc:
        raise ValueError("a password has no place in an address")
    return url


def _files(text: str) -> list[Any]:
    with suppress(ValueError, RecursionError):
        value = json.loads(text)
        files = value if isinstance(value, list) else [value]
        if all(isinstance(file, dict) for file in files):
            return files
    raise ValueError(
        'expected a list such as [{"type": "image", "transfer_method": "remote_url", "url": "https://..."}]'
    )


@click.command("dify", help="Ask a Dify app.", epilog=STATUS)
@click.option("--api-key", default="", metavar="-", help="Read the key from standard input; else DIFY_API_KEY.")
@click.option("--base-url", type=_address, default=CLOUD, envvar="DIFY_BASE_URL", metavar="URL", show_default=True)
@click.option("-q", "--query", default="", help="The question.")
@click.option("--user", default="test-user", help="The asking user: Dify keeps conversations per user.")
@click.option("--inputs", type=json_object, default="{}", metavar="JSON", help="The app's variables, an object.")
@click.option("--blocking", is_flag=True, help="Get the whole answer at once; agent apps reject this.")
@click.option("--conversation-id", default="", help="Continue this conversation.")
@click.option("--timeout", type=seconds, default=60.0, metavar="SECONDS", help="Between two events, or for --blocking.")
@click.option("--list-conversations", is_flag=True, help="List the user's conversations; ask nothing.")
@click.option("--files", type=_files, default="[]", metavar="JSON", help="A list of file objects as in Dify's API.")
@click.option("--no-auto-name", is_flag=True, help="Do not let Dify name the conversation, which costs a call.")
@click.option("--check", is_flag=True, help="Check streaming, blocking, two turns and the list; one line each.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer, the list or the check as JSON, at its end.")
def ask(
    api_key: str, base_url: str, timeout: float, list_conversations: bool, check: bool, as_json: bool, **question: Any
) -> int:
    if not (question["query"] or list_conversations or check):
        raise click.UsageError("nothing to ask: give --query, or --list-conversations")
    _never_fail_to_print()
    key = _key(api_key)
    page, errors, silent = printer_on(key=key), printer_on(sys.stderr, key=key), Printer(lambda text: None)
    shown, notes = silent if check or as_json else page, silent if check else errors
    with closing(DifyTalk(base_url, shown, notes, key=key, user=question["user"], timeout=timeout)) as talk:
        try:
            if check:
                return _check(talk, page, errors, partial(_body, question), as_json=as_json)
            made = talk.conversations() if list_conversations else _ask(talk, errors, question)
            if as_json:
                page.line(json.dumps(made, ensure_ascii=False))
        except KeyboardInterrupt:
            # A second Ctrl-C ends the program at once.
            with suppress(KeyboardInterrupt):
                errors.line(f"interrupted: {talk.stop()}")
            return INTERRUPTED
        except BrokenPipeError:
            # The reader of the output is gone, so the run is stopped in Dify.
            talk.stop()
            raise
        except ProviderError as exc:
            errors.line(str(Failure(exc, talk)))
            return 1
    return 0


def _never_fail_to_print() -> None:
    """Print characters that the terminal's encoding lacks as question marks."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _key(given: str) -> str:
    """Return the key from standard input, the command line, the environment or a hidden prompt."""
    if given and given != "-":
        click.echo(SEEN_KEY, err=True)
    # The variable may hold a list of keys; the product uses the first.
    key = given or os.environ.get("DIFY_API_KEY", "").split(",")[0].strip()
    if key == "-" or (not key and sys.stdin.isatty()):
        key = key_from_stdin("Dify API key: ")
    if not (key := key.strip()):
        raise click.UsageError(MISSING_KEY)
    if not key.isascii() or not key.isprintable() or " " in key:
        raise click.UsageError("the API key holds characters that no key has: copy it once more (app-...)")
    return key


def _body(question: Mapping[str, Any], mode: str, conversation_id: str = "") -> dict[str, Any]:
    body = {
        "query": question["query"] or HELLO,
        "inputs": question["inputs"],
        "user": question["user"],
        "response_mode": mode,
        "auto_generate_name": not question["no_auto_name"],
        "conversation_id": conversation_id,
        "files": question["files"],
    }
    # Dify 1.11.0 rejects an empty id.
    return {name: value for name, value in body.items() if value or name not in ("conversation_id", "files")}


def _ask(talk: DifyTalk, notes: Printer, question: Mapping[str, Any]) -> dict[str, Any]:
    """Ask, and return the answer as a JSON object."""
    mode, conversation_id = "blocking" if question["blocking"] else "streaming", question["conversation_id"]
    notes.line(f"POST {talk.urls.chat}, {mode}")
    notes.field("user", talk.user)
    notes.field("conversation", conversation_id or "a new one")
    for name in ("inputs", "files"):
        if value := question[name]:
            notes.field(name, json.dumps(value, ensure_ascii=False))
    notes.field("question", question["query"])
    notes.line()
    return talk.ask(_body(question, mode, conversation_id)).to_dict()


#: Builds the request body of a question from the mode and an optional conversation id.
Body = Callable[..., dict[str, Any]]


def _check(talk: DifyTalk, page: Printer, notes: Printer, body: Body, *, as_json: bool) -> int:
    """Check all calls the product makes, and blocking mode; print one line each, or one JSON object.

    Costs the tokens of four questions.
    """
    notes.line(f"{talk.urls.root}, user {talk.user}")
    findings = []
    for name, look in {"stream": _stream, "blocking": _block, "two turns": _take_two_turns, "list": _list}.items():
        findings.append(_finding(name, partial(look, name, talk, body), talk))
        if not as_json:
            page.line(str(findings[-1]))
    failed = any(finding.outcome == "failed" for finding in findings)
    if as_json:
        told = {"ok": not failed, "findings": [asdict(finding) for finding in findings]}
        page.line(json.dumps(told, ensure_ascii=False))
    return 1 if failed else 0


def _finding(name: str, look: Callable[[], Finding], talk: DifyTalk) -> Finding:
    try:
        return look()
    except ProviderError as exc:
        failure = Failure(exc, talk)
    if failure.refuses_blocking:
        return Finding(name, "ok", f"refused, as by any agent app ({failure.mode}): the product always streams")
    return Finding(name, "failed", str(failure))


def _stream(name: str, talk: DifyTalk, body: Body) -> Finding:
    return Finding(name, "ok", talk.ask(body("streaming")).summary())


def _block(name: str, talk: DifyTalk, body: Body) -> Finding:
    return Finding(name, "ok", talk.ask(body("blocking")).summary())


def _take_two_turns(name: str, talk: DifyTalk, body: Body) -> Finding:
    first = talk.ask(body("streaming")).turn.ids.conversation_id
    second = talk.ask(body("streaming", first)).turn.ids.conversation_id
    if first and first == second:
        return Finding(name, "ok", f"both in the conversation {first}")
    wrong = f"the second turn is in the conversation {second or 'of no name'}, the first in {first or 'one of no name'}"
    return Finding(name, "failed", wrong, "see that no proxy before Dify changes requests")


def _list(name: str, talk: DifyTalk, body: Body) -> Finding:
    wanted = talk.asked.turn.ids.conversation_id
    found = [conversation["id"] for conversation in talk.conversations()]
    if wanted in found:
        return Finding(name, "ok", f"{len(found)} conversations of the user {talk.user}, this one among them")
    wrong = f"the conversation {wanted or 'just begun'} is not among {len(found)} of the user {talk.user}"
    return Finding(name, "failed", wrong, "see that key and address are of the same app and Dify")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    return run(ask, argv)


if __name__ == "__main__":
    sys.exit(until_nobody_reads(main))

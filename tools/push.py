"""`python -m tools.push`: sends a message that nobody asked for, through a bot's long connection.

    python -m tools.push --to zhangsan '**Reminder**: the meeting begins at 3 pm'
    python -m tools.push --group wrGROUP --file report.pdf
    date | python -m tools.push --to zhangsan -               the text comes from standard input

The service is that of LAIBAO_URL or --url, else the one at PORT of `.env`; the key that of LAIBAO_KEY, or with
`--key -` of standard input. During an outage calls are repeated, and the message is sent once.
Exit status: 0 sent; 1 not sent, or not known; 2 wrong usage; 130 interrupted; 141 the output's reader closed the pipe.
"""

from __future__ import annotations

import json
import sys
import time
import uuid
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from tools._batch.api import Api, Data, Failed, retried
from tools._command import LOCAL, api_key, local_url, run, seconds_or_none, service_url
from tools._page import Printer, printer_on
from tools._pipes import until_nobody_reads

#: Seconds that an outage may last, seconds to wait for the end of a push, and between two looks at it.
OUTAGE_TIMEOUT, WAIT, LOOK = 60.0, 60.0, 0.5
STATUS = "Exit status: 0 sent, 1 not sent or not known, 2 wrong usage, 130 interrupted."
RUNNING = ("queued", "sending")


@click.command("push", help="Send MARKDOWN, or a file, to a person or a group. - reads the text.", epilog=STATUS)
@click.argument("markdown", default="")
@click.option("--to", "userid", default="", metavar="USERID", help="The person.")
@click.option("--group", "chatid", default="", metavar="CHATID", help="The group.")
@click.option("--file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Send this file.")
@click.option("--bot", default="default", metavar="NAME", help="The bot that sends it.")
@click.option("--id", "name", default="", metavar="KEY", help="Your own id of the message: twice is sent once.")
@click.option("--wait", type=seconds_or_none, default=WAIT, metavar="SECONDS", help="Wait for its end, 60; 0: do not.")
@click.option("--json", "as_json", is_flag=True, help="Print the push as one JSON object.")
@click.option("--url", type=service_url, default=local_url, envvar="LAIBAO_URL", metavar="URL", show_default=LOCAL)
@click.option("--key", type=api_key, default="", metavar="-", help="Read it from standard input; else LAIBAO_KEY.")
def push(
    markdown: str, userid: str, chatid: str, file: Path | None, wait: float, as_json: bool, url: str, **rest: str
) -> int:
    if bool(userid) == bool(chatid):
        raise click.UsageError("give --to USERID or --group CHATID")
    if bool(markdown) == bool(file):
        raise click.UsageError("give a text or --file")
    target = {"bot": rest["bot"], **({"userid": userid} if userid else {"chatid": chatid})}
    body = _form(target, file) if file else {"json": {**target, "markdown": _text(markdown)}}
    errors = printer_on(sys.stderr, key=rest["key"])
    with closing(Api(url, rest["key"], root="/api/push")) as api:
        try:
            shown = _send(_Sending(api, errors), body, rest["name"] or uuid.uuid4().hex, wait)
        except Failed as exc:
            errors.line(str(exc))
            return 1
    told = [shown["id"], shown["state"], shown.get("error", "")]
    printer_on().line(json.dumps(shown, ensure_ascii=False) if as_json else " ".join(filter(None, told)))
    return 0 if shown["state"] == "sent" or not wait else 1


class _Sending:
    """Calls of the push API, repeated during an outage."""

    def __init__(self, api: Api, errors: Printer) -> None:
        self._api = api
        self._errors = errors

    def ask(self, method: str, path: str, **more: Any) -> Data:
        return retried(lambda: self._api.ask(method, path, **more), OUTAGE_TIMEOUT, self._errors.line)


def _send(sending: _Sending, body: dict[str, Any], name: str, wait: float) -> Data:
    """Send a message, wait for its end, and return how it stands."""
    shown, end = sending.ask("POST", "", headers={"Idempotency-Key": name}, **body), time.monotonic() + wait
    while shown["state"] in RUNNING and time.monotonic() < end:
        time.sleep(LOOK)
        shown = sending.ask("GET", f"/{shown['id']}")
    return shown


def _form(target: dict[str, str], file: Path) -> dict[str, Any]:
    return {"data": target, "files": {"file": (file.name, file.read_bytes())}}


def _text(markdown: str) -> str:
    return sys.stdin.read() if markdown == "-" else markdown


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    return run(push, argv)


if __name__ == "__main__":
    sys.exit(until_nobody_reads(main))

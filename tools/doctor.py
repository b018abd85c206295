"""`python -m tools.doctor`: finds problems of a deployment and prints their remedies.

Reads the settings as the product does, then checks Redis, SQL, the user query, the auth API, and every bot's access to
WeCom's directory, Dify app, and callback address or long connection, in this order, each for at most ten seconds.
Prints one line per check and never a secret; `off` is what the settings leave out.
Exit status: 0 no check failed (there may be warnings), 1 a check failed.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict

from config.errors import SettingsError
from config.logging import MASK, SHORTEST_SECRET
from config.settings import Settings, load_settings
from tools._doctor.checks import Finding, findings
from tools._doctor.settings import check_settings
from tools._pipes import until_nobody_reads
from utils.printable import as_json, printable


def main(argv: Sequence[str] | None = None, *, load: Callable[[], Settings] = load_settings) -> int:
    """Print the report; return the exit status."""
    options = _options(argv)
    # Suppress log lines during the checks: the report has the same facts.
    logging.getLogger().addHandler(logging.NullHandler())
    found = []
    for finding in diagnose(options, load):
        found.append(finding)
        if not options.json:
            print(printable(str(finding)), flush=True)
    failed = [finding for finding in found if finding.outcome == "failed"]
    if options.json:
        print(as_json({"ok": not failed, "findings": [asdict(f) for f in found]}, indent=2))
    else:
        counts = Counter(finding.outcome for finding in found)
        summary = f"{counts['ok']} ok, {counts['off']} off, {counts['warning']} to look at, {counts['failed']} failed"
        print(f"{len(found)} checks: {summary}")
    return 1 if failed else 0


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.doctor", description="Say what is wrong with a deployment.")
    parser.add_argument("--userid", default="", help="WeCom's userid of a user to look up")
    parser.add_argument("--corp", default="", help="the corp of that user, if bots have one")
    parser.add_argument("--url", default="", help="the callback's public address; else this machine's port")
    parser.add_argument(
        "--subscribe",
        action="store_true",
        help="try BotID and Secret of bots that no replica runs; ends the connection of another program that runs one",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    return parser.parse_args(argv)


def diagnose(options: argparse.Namespace, load: Callable[[], Settings]) -> Iterator[Finding]:
    """Yield every finding as soon as it is made, with all secrets masked."""
    try:
        settings = load()
    except (SettingsError, ValueError) as exc:
        yield _wrong(exc)
        return
    yield from _masked(check_settings(settings), settings.secrets)
    # Loading the product takes a second: the first lines are there before it.
    from bootstrap.container import Container
    from tools._doctor.deployment import checks

    try:
        container = Container(settings)
    except (SettingsError, ValueError) as exc:
        yield _wrong(exc)
        return
    try:
        for name, look in checks(settings, container, options):
            yield from _masked(findings(name, look), settings.secrets)
    finally:
        container.close()


def _wrong(exc: Exception) -> Finding:
    remedy = "correct the setting in the environment or in .env, or the file that it names"
    return Finding("settings", "failed", str(exc), remedy)


def _masked(found: Iterable[Finding], secrets: Iterable[str]) -> Iterator[Finding]:
    """Mask secrets in findings: a database's error message may quote a password."""
    long = sorted((secret for secret in secrets if len(secret) >= SHORTEST_SECRET), key=len, reverse=True)
    for finding in found:
        text = finding.text
        for secret in long:
            text = text.replace(secret, MASK)
        yield Finding(finding.check, finding.outcome, text, finding.remedy)


if __name__ == "__main__":
    sys.exit(until_nobody_reads(main))

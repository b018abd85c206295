"""`python -m tools.words test TEXT`: says which rules of `WORDS_FILE` a text meets, and how an answer with it looks.

    python -m tools.words test TEXT [--bot NAME] [--file PATH] [--json]

TEXT is - for standard input. The rules are those of the settings' file, else those that administrators have saved, or
of a file that is not in force yet. `--json`
prints one object a line: `{"line", "action", "pattern"}` for each rule, at last `{"refused", "masked"}`.
Exit status: 0 no rule is met, 1 one is, 2 the file or the settings are wrong, or the database is away.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import closing

from config.bots import DEFAULT_BOT
from config.errors import LaibaoError, SettingsError
from config.settings import load_settings
from services.admin.rules_store import RulesStore
from services.rules.rules_file import RulesFile
from services.rules.words import WordRules
from tools._pipes import until_nobody_reads

WRONG = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Print the rules that the text meets; return the exit status."""
    options = _options(argv)
    try:
        rules = _rules(options.file, options.bot)
    except LaibaoError as exc:
        print(exc, file=sys.stderr)
        return WRONG
    text = sys.stdin.read() if options.text == "-" else options.text
    met = sorted({*rules.asked([text]), *rules.answered(text)})
    refused, masked = any(rule.action == "refuse" for rule in met), rules.masked(text)
    if options.json:
        for rule in met:
            print(json.dumps({"line": rule.line, "action": rule.action, "pattern": rule.pattern}, ensure_ascii=False))
        print(json.dumps({"refused": refused, "masked": masked}, ensure_ascii=False))
    else:
        for rule in met:
            print(f"line {rule.line}: {rule.action} {'re:' * rule.is_expression}{rule.pattern}")
        print(f"as a question: {'refused' if refused else 'asked'}")
        print(f"in an answer: {masked}")
    return 1 if met else 0


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.words", description="The rules of WORDS_FILE.")
    commands = parser.add_subparsers(required=True, metavar="test")
    test = commands.add_parser("test", help="say which rules a text meets")
    test.add_argument("text", metavar="TEXT", help="the text; - reads standard input")
    test.add_argument("--bot", default=DEFAULT_BOT, help="the bot whose rules count")
    test.add_argument("--file", type=str, help="another file than the settings name")
    test.add_argument("--json", action="store_true", help="print one JSON object a line")
    return parser.parse_args(argv)


def _rules(file: str | None, bot: str) -> WordRules:
    """Return the rules of a file, else those of a bot.

    Raises:
        SettingsError: the file is wrong, the bot is unknown, or it has no rules.
        StoreUnavailable: the database is away that would have them.
    """
    settings = None if file else load_settings()
    if settings:
        named = settings.bots.get(bot)
        file = named.words_file if named else settings.words_file if bot == DEFAULT_BOT else None
    if file:
        return RulesFile("WORDS_FILE", file, WordRules.parse).rules
    if settings and settings.sql_url and (bot == DEFAULT_BOT or bot in settings.bots):
        with closing(RulesStore(settings.sql_url.get_secret_value())) as store:
            newest = (store.newest() or {}).get("words")
            if newest and (text := store.text("words", newest.number)):
                return WordRules.parse(text)
    raise SettingsError(f"WORDS_FILE of bot {bot} is not set")


if __name__ == "__main__":
    sys.exit(until_nobody_reads(main))

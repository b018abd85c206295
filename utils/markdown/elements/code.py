"""Code with its language and colours: Pygments reads it, and few classes of ours name its parts.

The colours are in the page's style sheet, light and dark. Only the languages below are read: a language's name comes
from the answer's text, and a reader of every language that Pygments has would be imported for the asking.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache, lru_cache
from html import escape
from itertools import groupby
from time import thread_time

from pygments.lexer import Lexer
from pygments.lexers import LEXERS, get_lexer_by_name
from pygments.token import Token, _TokenType

#: Characters of a block of code with colours; Pygments takes about 3 ms per 1,000, in which no other greenlet runs.
MOST_COLOURED = 8 * 1024
#: Seconds of CPU time for the colours of one block, twice the time for that size; then the rest of the block has none.
#: Pygments' expressions are up to cubic in the code: short lines as C# would take half a minute.
MOST_SECONDS = 0.05
#: White space with which code has no colours: one expression of C takes quadratic time for a run of it (10 ms for
#: this many characters), and nothing interrupts it.
_BLANKS = re.compile(r"\s{500}")

#: The class of a block of code, and the shape of a language's name in `data-language`.
BLOCK = "code"
LANGUAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9+#._-]{0,29}")

_CLASSES = {
    Token.Comment: "c",
    Token.Keyword: "k",
    Token.Operator.Word: "k",
    Token.Name.Tag: "k",
    Token.Literal.String: "s",
    Token.Literal.Number: "n",
    Token.Keyword.Constant: "n",
    Token.Name.Function: "f",
    Token.Name.Class: "f",
    Token.Name.Decorator: "f",
    Token.Name.Builtin: "b",
    Token.Name.Attribute: "b",
    Token.Keyword.Type: "b",
    Token.Generic.Heading: "f",
    Token.Generic.Subheading: "f",
    Token.Generic.Inserted: "i",
    Token.Generic.Deleted: "d",
}
#: The classes of coloured parts.
COLOURS = frozenset(_CLASSES.values())

#: The languages that are read, by the first name that Pygments has for them.
_LEXERS = {
    "bash",
    "batch",
    "c",
    "cpp",
    "csharp",
    "css",
    "dart",
    "diff",
    "docker",
    "go",
    "groovy",
    "html",
    "http",
    "ini",
}
_LEXERS |= {"java", "javascript", "json", "kotlin", "lua", "make", "matlab", "nginx", "objective-c", "perl", "php"}
_LEXERS |= {"powershell", "python", "ruby", "rust", "scala", "scss", "sql", "swift", "tex", "toml", "typescript"}
_LEXERS |= {"ini", "xml", "yaml"}
_NAMES = {name: names[0] for _, _, names, _, _ in LEXERS.values() if names and names[0] in _LEXERS for name in names}
_NAMES |= {"jsonc": "json", "tsx": "typescript", "vue": "html"}


def render_code(code: str, language: str, *, coloured: bool) -> str:
    """Return a block of code as HTML; `language` is the word after the fence, "" for none."""
    found = LANGUAGE.match(language.strip())
    named = found[0] if found else ""
    fits = coloured and len(code) <= MOST_COLOURED and not _BLANKS.search(code)
    lexer = _NAMES.get(named.lower(), "") if fits else ""
    words = _coloured(code, lexer) if lexer else escape(code, quote=False)
    attribute = f' data-language="{escape(named)}"' if named else ""
    return f'<pre class="{BLOCK}"{attribute}><code>{words}</code></pre>\n'


@lru_cache(maxsize=64)
def _coloured(code: str, lexer: str) -> str:
    return "".join(
        f'<span class="{colour}">{escape(part, quote=False)}</span>' if colour else escape(part, quote=False)
        for colour, part in _parts(code, lexer)
    )


def _parts(code: str, lexer: str) -> Iterator[tuple[str, str]]:
    """Yield the code in parts of one colour each, "" for none; joined they are the code."""
    for colour, part in groupby(_tokens(code, lexer), key=lambda token: token[0]):
        yield colour, "".join(text for _, text in part)


def _tokens(code: str, lexer: str) -> Iterator[tuple[str, str]]:
    """Yield the class and the text of each token; after `MOST_SECONDS` the rest of the code without a class."""
    # Loading a language for the first time takes up to 0.15 s, which is not the code's.
    tokens = _lexer(lexer).get_tokens_unprocessed(code)
    end, read = thread_time() + MOST_SECONDS, 0
    for _, kind, text in tokens:
        if thread_time() > end:
            yield "", code[read:]
            return
        read += len(text)
        yield _class_of(kind), text


@cache
def _lexer(name: str) -> Lexer:
    return get_lexer_by_name(name)


@cache
def _class_of(kind: _TokenType) -> str:
    """Return the class of a kind of token or of the nearest kind above it, "" for none."""
    return next((_CLASSES[each] for each in reversed(kind.split()) if each in _CLASSES), "")

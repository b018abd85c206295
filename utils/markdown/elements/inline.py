"""Parts of a line: emphasis next to Chinese, Japanese and Korean text, bare links, citations, and `<br>`.

CommonMark decides by the characters around `**` whether it opens or closes; its rule counts a full-width colon or a
quotation mark as punctuation that must be followed by white space. Languages that write no spaces never do that. The
rule here is the one of the CJK-friendly emphasis specification (github.com/tats-u/markdown-cjk-friendly).
"""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.common.utils import isWhiteSpace
from markdown_it.parser_inline import ParserInline
from markdown_it.rules_inline.state_inline import Scanned, StateInline
from markdown_it.token import Token

#: Characters of a bare link at most, after its host; a longer one is cut there.
MOST_LINK = 2000
#: Characters of a host at most, as in DNS; an address with a longer one is no link.
MOST_HOST = 253

_CJK = re.compile(
    "[\u1100-\u11ff\u2e80-\u2fff\u3001-\ua4cf\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\ufe30-\ufe4f\uff01-\uffef"
    "\U00016fe0-\U0001b2ff\U00020000-\U0003ffff]"
)
_IN_HOST, _IN_LINK = r"[A-Za-z0-9\-._~:@!$&'()*+,;=%]", r"[A-Za-z0-9\-._~:/?#@!$&'()*+,;=%]"
_LINK = re.compile(
    rf"(?:https?://|www\.){_IN_HOST}{{1,{MOST_HOST}}}(?!{_IN_HOST})(?:[/?#]{_IN_LINK}{{0,{MOST_LINK}}})?", re.IGNORECASE
)
_LINK_START = re.compile(r"https?://|www\.", re.IGNORECASE)
#: Characters that end a sentence rather than a link.
_AFTER_LINK = "?!.,:;*_~'"
_BREAK = re.compile(r"<br[ \t]{0,9}/?>(?:[ \t]{0,9}\n)?[ \t]{0,9}", re.IGNORECASE)


#: The class of a citation, and where it leads: the page finds the source by the number.
CITED, SOURCE = "cite", re.compile(r"#source-[1-9]\d?")
_NUMBER = r"([1-9]\d?)"
#: A bracket after it would make it a link, or the first of several citations.
_CITATION = re.compile(rf"\[\^?{_NUMBER}\](?![(:]|\[(?!\^?[1-9]\d?\]))|【{_NUMBER}(?:†[^】\n]{{0,40}})?】")


#: Characters at which an element of a line may begin or end; the parser stops at each.
STOPS = r"[\n!$&*<\[\]\\_`~【]"
#: Depth to which the parser looks for the end of brackets within brackets.
_MOST_AHEAD = 5


class InlineState(StateInline):
    """One line or paragraph that is parsed, with the CJK-friendly rule for `*` and `~`."""

    def __init__(
        self, src: str, md: MarkdownIt, env: MutableMapping[str, Any], tokens: list[Token], stops: re.Pattern[str]
    ) -> None:
        super().__init__(src, md, env, tokens)
        #: Where plain text may end.
        self.stops = stops
        #: Brackets whose ends are being looked for.
        self.ahead = 0

    def scanDelims(self, start: int, canSplitWord: bool) -> Scanned:  # noqa: N802, N803 - the parser's names
        scanned = super().scanDelims(start, canSplitWord)
        if not canSplitWord:
            return scanned
        end = start + scanned.length
        before = self.src[start - 1] if start else " "
        after = self.src[end] if end < self.posMax else " "
        if not (_CJK.match(before) or _CJK.match(after)):
            return scanned
        # One of both is CJK, so punctuation on the other side does not keep emphasis from beginning or ending.
        return Scanned(not _is_space(after), not _is_space(before), scanned.length)


class InlineParser(ParserInline):
    """Parses with `InlineState`, and stops at bare links only in texts that have one."""

    def __init__(self) -> None:
        super().__init__()
        self.terminator_re = re.compile(STOPS)
        self.ruler.at("text", _text)
        self.ruler.before("escape", "bare_link", _bare_link)
        self.ruler.before("autolink", "line_break", _line_break)
        self._link_stops = re.compile(f"{self.terminator_re.pattern}|{_LINK_START.pattern}", re.IGNORECASE)

    def skipToken(self, state: StateInline) -> None:  # noqa: N802 - the parser's name
        """Skip an element while the end of brackets is looked for; all of the line where brackets are too deep."""
        assert isinstance(state, InlineState)
        if state.ahead >= _MOST_AHEAD and state.pos not in state.cache:
            state.cache[state.pos] = state.posMax
        state.ahead += 1
        super().skipToken(state)
        state.ahead -= 1

    def parse(self, src: str, md: MarkdownIt, env: MutableMapping[str, Any], tokens: list[Token]) -> list[Token]:
        stops = self._link_stops if _LINK_START.search(src) else self.terminator_re
        state = InlineState(src, md, env, tokens, stops)
        self.tokenize(state)
        for rule in self.ruler2.getRules(""):
            rule(state)
        return state.tokens


def _is_space(character: str) -> bool:
    return isWhiteSpace(ord(character))


def _text(state: StateInline, silent: bool) -> bool:
    """Take the text up to the next character, or bare link, at which a rule may match."""
    assert isinstance(state, InlineState)
    found = state.stops.search(state.src, state.pos)
    end = min(found.start(), state.posMax) if found else state.posMax
    if end == state.pos:
        return False
    if not silent:
        state.append_pending(state.src[state.pos : end])
    state.pos = end
    return True


def _bare_link(state: StateInline, silent: bool) -> bool:
    """Make a link of an address in the text; only ASCII belongs to it, so text may follow without a space."""
    found = _LINK.match(state.src, state.pos, state.posMax)
    if not found or state.linkLevel or _follows_word(state.src, state.pos):
        return False
    address = _without_end(found[0])
    begins = _LINK_START.match(address)
    if not begins or begins.end() == len(address):
        return False
    url = state.md.normalizeLink(address if "://" in address else f"http://{address}")
    if not silent:
        state.push("link_open", "a", 1).attrs = {"href": url}
        state.push("text", "", 0).content = address
        state.push("link_close", "a", -1)
    state.pos += len(address)
    return True


def _follows_word(text: str, position: int) -> bool:
    return position > 0 and text[position - 1].isascii() and text[position - 1].isalnum()


def _without_end(address: str) -> str:
    """Return the address without punctuation after it and without a closing bracket that it does not open."""
    unopened = address.count(")") - address.count("(")
    while address[-1] in _AFTER_LINK or (address[-1] == ")" and unopened > 0):
        unopened -= address[-1] == ")"
        address = address[:-1]
    return address


def _line_break(state: StateInline, silent: bool) -> bool:
    """Break the line at `<br>`, the only tag of HTML that is taken as one: a table's cell has no other break."""
    found = _BREAK.match(state.src, state.pos, state.posMax)
    if not found:
        return False
    if not silent:
        state.push("hardbreak", "br", 0)
    state.pos = found.end()
    return True


def use_citations(parser: MarkdownIt) -> None:
    """Turn `[1]`, `[^1]` and `【1】` into numbers that lead to the source of this number in a page's list.

    A link that the text defines by a number remains a link.
    """
    parser.inline.ruler.after("link", "citation", _citation)


def _citation(state: StateInline, silent: bool) -> bool:
    found = _CITATION.match(state.src, state.pos, state.posMax)
    if not found or state.linkLevel or silent:
        # In silent mode the parser skips over a link's words: [[1]](url) is one link, not a citation within another.
        return False
    number = found[1] or found[2]
    state.push("sup_open", "sup", 1).attrs = {"class": CITED}
    state.push("link_open", "a", 1).attrs = {"href": f"#source-{number}"}
    state.push("text", "", 0).content = number
    state.push("link_close", "a", -1)
    state.push("sup_close", "sup", -1)
    state.pos = found.end()
    return True

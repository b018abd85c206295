"""Makes the workbook of a task's results for people: their own columns first, then questions and answers as plain text.

The CSV has every field for programs (`downloads.py`); this has what a person reads, with the words of the page's
language and in local time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from itertools import chain, islice
from typing import TypeVar

from config.texts import LOCALES
from config.texts.workbook import WORKBOOK
from services.batches.records import Item
from utils.formats.xlsx_writer import MAX_CELL, Cell, workbook_pieces
from utils.markdown.plain_text import plain_text
from utils.printable import harmless

C = TypeVar("C")

#: Our columns with their widths in characters, in order; the submitted file's columns come before them.
WIDTHS = {"number": 7, "question": 40, "answer": 80, "status": 10, "reason": 30, "sources": 40, "tokens": 12}
WIDTHS |= {"price": 14, "attempts": 10, "started": 20, "ended": 20}
#: Widths of the column of ids and of each other column of the file.
ID_WIDTH, OWN_WIDTH = 14, 20


@dataclass(frozen=True, slots=True)
class WorkbookReader:
    """For whom a workbook is made: the language of its words, and the time zone of its times."""

    locale: str
    #: Minutes that local time is ahead of UTC.
    utc_offset: int


def here(locale: str) -> WorkbookReader:
    """Return a reader in this server's time zone."""
    offset = datetime.now(UTC).astimezone().utcoffset() or timedelta()
    return WorkbookReader(locale, int(offset.total_seconds() // 60))


def workbook(items: Iterator[Item], reader: WorkbookReader) -> Iterator[bytes]:
    """Yield the workbook in pieces; it needs the memory of a few items."""
    first = list(islice(items, 1))
    table = _Table(reader, first[0] if first else Item(0, ""))
    rows = chain([table.head()], map(table.row, chain(first, items)))
    return workbook_pieces(rows, name=WORKBOOK[reader.locale]["sheet"], widths=table.widths())


class _Table:
    """The columns of a workbook: the file's, which are those of the first item, and ours.

    Ids are the first column, or the last one where the first item has none.
    """

    def __init__(self, reader: WorkbookReader, first: Item) -> None:
        self._locale = reader.locale
        self._words = WORKBOOK[reader.locale]
        self._zone = timezone(timedelta(minutes=reader.utc_offset))
        self._names = list(first.given.columns)
        self._id_first = bool(first.given.id)

    def head(self) -> Sequence[Cell]:
        zone = self._zone.tzname(None)
        ours = [self._words[name].format(zone=zone) for name in WIDTHS]
        taken = {*ours, self._words["id"]}
        own = [self._words["own"].format(name=name) if name in taken else name for name in self._names]
        return self._placed(self._words["id"], [harmless(name) for name in own], ours)

    def widths(self) -> Sequence[int]:
        return self._placed(ID_WIDTH, [OWN_WIDTH] * len(self._names), list(WIDTHS.values()))

    def row(self, item: Item) -> Sequence[Cell]:
        own = [harmless(item.given.columns.get(name, "")) for name in self._names]
        return self._placed(harmless(item.given.id), own, self._ours(item))

    def _placed(self, own_id: C, own: Sequence[C], ours: Sequence[C]) -> Sequence[C]:
        return [own_id, *own, *ours] if self._id_first else [*own, *ours, own_id]

    def _ours(self, item: Item) -> list[Cell]:
        values: dict[str, Cell] = {
            "number": item.index + 1,
            "question": harmless(item.text),
            "answer": harmless(plain_text(item.content, 2 * MAX_CELL)),
            "status": self._words[item.status],
            "reason": harmless(self._reason(item)),
            "sources": harmless(_sources(item)),
            "tokens": _tokens(item),
            "price": harmless(_price(item)),
            "attempts": item.attempts,
            "started": self._local(item.started_at),
            "ended": self._local(item.completed_at),
        }
        return [values[name] for name in WIDTHS]

    def _reason(self, item: Item) -> str:
        """Return the sentence of a failure in the reader's language, or the stored one if there is none."""
        if not item.error:
            return ""
        known = LOCALES[self._locale].get(item.error.get("code", ""), "")
        return known if known and "{" not in known else item.error.get("message", "")

    def _local(self, moment: datetime | None) -> Cell:
        return "" if moment is None else moment.astimezone(self._zone).replace(tzinfo=None)


def _sources(item: Item) -> str:
    """Return a line for each source: its number, its title and its address."""
    lines = (" ".join(str(source.get(name) or "") for name in ("title", "url")).strip() for source in item.sources)
    return "\n".join(f"{number}. {line}" for number, line in enumerate(filter(None, lines), 1))


def _tokens(item: Item) -> Cell:
    tokens = item.usage.get("total_tokens")
    return tokens if isinstance(tokens, int) else ""


def _price(item: Item) -> str:
    price, currency = (str(item.usage.get(name) or "") for name in ("total_price", "currency"))
    return f"{price} {currency}".strip() if price else ""

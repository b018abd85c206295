"""Find the column of a table that contains the questions, by its name or else by its content; never guess.

The first row counts as a header if it contains a usual column name, or a word above a column of numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Literal

from utils.questions.detection import detect

Header = Literal["auto", "yes", "no"]
TableRow = Sequence[str]

#: Number of rows that are examined.
SAMPLE = 100
#: Names of columns with questions, the most certain first.
NAMES: tuple[str, ...] = ("question", "questions", "query", "queries", "prompt", "prompts", "q", "text", "texts")
NAMES += ("问题", "提问", "问句", "提示词", "问题内容", "用户问题", "用户提问", "文本")
#: Names that show that the first row is a header, but not which column has the questions.
HEADING = re.compile(
    r"id|no\.?|nr\.?|number|index|answers?|reply|response|content|message|input|title|subject|topic|notes?|remark"
    r"|category|type|tags?|date|time|name|user|department|source|status|language"
    r"|编号|序号|行号|号码|答案|回答|回复|内容|消息|输入|标题|主题|备注|说明|分类|类别|类型|标签|日期|时间|姓名|用户|部门|来源|状态|语言"
)
#: Names of columns with the ids of rows.
_ID = re.compile(r"(question[_ ]?|q)?(id|no\.?|nr\.?|number|index)|(问题)?(编号|序号|id)|行号|号码")
#: Parts of longer names of question columns, and endings of names for attributes of a question (number, type, date).
_PART = re.compile(r"question|query|prompt|问题|提问|问句")
_ABOUT = re.compile(r"(编号|序号|号|类型|类别|分类|来源|时间|日期|状态|数|id|no\.?|type|date|time)$")
#: Cells that are not questions: numbers, dates, codes, yes and no, addresses.
_PLAIN = re.compile(
    r"[\d\s.,:/+%()#_\-年月日时分秒]*|[a-z]{0,8}[-_#.]?\d[\w\-.]*|true|false|yes|no|y|n|是|否|[^\s@]+@[^\s@]+|https?://\S+"
)
#: Minimum share of text cells in a text column, minimum share of questions in the question column, and maximum share of
#: questions in every other column.
TEXT_SHARE = 0.5
ASKING_SHARE = 0.6
SILENT_SHARE = 0.2
#: Maximum number of columns whose cells are kept beside a question, and of characters of a column's name.
MAX_COLUMNS, NAME_CHARS = 256, 200
#: Maximum number of columns, and of characters of each name, in an error message.
SHOWN, SHOWN_CHARS = 20, 30


class Unclear(Exception):
    """The question column cannot be determined; the message lists the columns."""


class Missing(Unclear):
    """The requested column does not exist; the message lists the columns."""


def find_column(rows: Sequence[TableRow], column: str = "", header: Header = "auto") -> tuple[int, bool]:
    """Return the index of the question column, and whether the first row is a header.

    `rows` are the first non-blank rows, at least one. `column` is a name, a number from 1, or "" to find the column.

    Raises:
        Missing: no column has this name.
        Unclear: `column` is "", and no column or more than one qualifies.
    """
    names = [cell.strip().casefold() for cell in rows[0]]
    wanted = column.strip().casefold()
    if wanted:
        return _chosen(rows, names, wanted, header)
    if header != "no" and (named := next((name for name in NAMES if name in names), "")):
        if names.count(named) > 1:
            raise Unclear(_listed(rows[0]))
        return names.index(named), True
    headed = has_header(rows, header)
    if headed and len(rows) == 1:
        return 0, True
    return _by_content(rows[1:] if headed else rows, rows[0], names if headed else []), headed


def rate_sheet(rows: Sequence[TableRow], column: str = "", header: Header = "auto") -> int:
    """Rate how surely a sheet has the questions; its `rows` as in `find_column`, or [].

    3: the column that was chosen by its name, or one with a usual name; 2: one whose longer name speaks of questions;
    1: one whose cells ask something; 0: none of these.
    """
    names = [cell.strip().casefold() for cell in rows[0]] if len(rows) > 1 and header != "no" else []
    wanted = column.strip().casefold()
    if names and (wanted in names if wanted else not set(NAMES).isdisjoint(names)):
        return 3
    # A sheet of instructions may have a single cell about questions in its first row.
    if sum(map(bool, names)) > 1 and not wanted and any(map(_speaks_of_questions, names)):
        return 2
    try:
        index, headed = find_column(rows, column, header) if rows else (0, False)
    except Unclear:
        return 0
    below = rows[headed:]
    return int(bool(_cells(below, index)) and _share(below, index, _asks) >= ASKING_SHARE)


def has_header(rows: Sequence[TableRow], header: Header = "auto") -> bool:
    """Return whether the first row is a header; `rows` as in `find_column`."""
    return _is_header(rows) if header == "auto" else header == "yes"


def named_column(rows: Sequence[TableRow], column: str, *, headed: bool) -> int:
    """Return the index of a column by its name or its number from 1.

    Raises:
        Missing: no column has this name.
    """
    names = [cell.strip().casefold() for cell in rows[0]]
    return _chosen(rows, names, column.strip().casefold(), "yes" if headed else "no")[0]


def column_names(rows: Sequence[TableRow], *, headed: bool) -> dict[int, str]:
    """Return the names of the columns that have any cell in these rows, by their index; no two are equal.

    A column without a name in the header is named by its number, and a repeated name gets the number.
    """
    names: dict[int, str] = {}
    for index in range(min(MAX_COLUMNS, max(map(len, rows), default=0))):
        if not _cells(rows, index):
            continue
        name = rows[0][index].strip()[:NAME_CHARS] if headed and index < len(rows[0]) else ""
        names[index] = f"{name} ({index + 1})" if name in names.values() else name or str(index + 1)
    return names


def guess_id(rows: Sequence[TableRow]) -> int | None:
    """Return the index of the column whose name in the header is that of ids, and whose cells all differ."""
    for index, cell in enumerate(rows[0]):
        below = _cells(rows[1:], index)
        if _ID.fullmatch(cell.strip().casefold()) and len(below) == len(rows) - 1 == len({*below}):
            return index
    return None


def _chosen(rows: Sequence[TableRow], names: Sequence[str], wanted: str, header: Header) -> tuple[int, bool]:
    if header != "no" and wanted in names:
        return names.index(wanted), True
    if re.fullmatch(r"[1-9]\d{0,4}", wanted):
        return int(wanted) - 1, has_header(rows, header)
    raise Missing(_listed(rows[0]))


def _by_content(rows: Sequence[TableRow], first: TableRow, names: Sequence[str]) -> int:
    """Return the only column that qualifies by its content; `names` are the header's, [] without a header."""
    width = max(map(len, rows))
    filled = [index for index in range(width) if any(_cells(rows, index))]
    if len(filled) == 1:
        return filled[0]
    texts = [index for index in filled if _share(rows, index, lambda cell: not _is_plain(cell)) > TEXT_SHARE]
    if len(texts) == 1:
        return texts[0]
    named = [index for index in texts if index < len(names) and _speaks_of_questions(names[index])]
    if len(named) == 1:
        return named[0]
    # Only with a header: without one, a comma inside a question looks like a second column.
    shares = {index: _share(rows, index, _asks) for index in texts} if names and len(texts) <= SHOWN else {}
    asking = [index for index, share in shares.items() if share >= ASKING_SHARE]
    if len(asking) == 1 and all(share <= SILENT_SHARE for index, share in shares.items() if index not in asking):
        return asking[0]
    raise Unclear(_listed(first))


def _is_header(rows: Sequence[TableRow]) -> bool:
    """Return whether the first row is a header."""
    first = [cell.strip().casefold() for cell in rows[0]]
    alone = sum(map(bool, first)) == 1
    for index, cell in enumerate(first):
        below = [other.casefold() for other in _cells(rows[1:], index)]
        if cell in NAMES or (not alone and cell not in below and HEADING.fullmatch(cell)):
            return True
        if cell and below and not _is_plain(cell) and all(map(_is_plain, below)):
            return not alone
    return False


def _cells(rows: Sequence[TableRow], index: int) -> list[str]:
    """Return the non-blank cells of a column."""
    return [cell for row in rows if index < len(row) and (cell := row[index].strip())]


def _share(rows: Sequence[TableRow], index: int, holds: Callable[[str], bool]) -> float:
    cells = _cells(rows, index)
    return sum(map(holds, cells)) / len(cells)


def _is_plain(cell: str) -> bool:
    return _PLAIN.fullmatch(cell[:500].casefold()) is not None


def _asks(cell: str) -> bool:
    return detect(cell[:500]).is_question


def _speaks_of_questions(name: str) -> bool:
    return _PART.search(name) is not None and not _ABOUT.search(name)


def _listed(first: TableRow) -> str:
    """Return the columns with their numbers and names, for an error message."""
    shown = [f"{number} {cell.strip()[:SHOWN_CHARS] or '–'}" for number, cell in enumerate(first[:SHOWN], 1)]
    return ", ".join(shown + ["…"] * (len(first) > SHOWN))

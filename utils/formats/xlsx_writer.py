"""Writes an Excel workbook with one sheet piece by piece: a sheet of any length needs the memory of a row.

The first row is the head: it is bold and stays in sight. Texts are wrapped in columns of given widths.

openpyxl's write-only mode needs a file for the sheet, and compresses it in one go, in which time no other request
would be served. Strings are in their cells (inline), so that no table of strings has to be kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from html import escape
from io import RawIOBase
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

#: Maximum characters of a cell: Excel calls a workbook with a longer one damaged.
MAX_CELL = 32_767

#: A text is never a formula; a time, without a time zone, is a date of Excel.
Cell = str | int | float | datetime

_CUT = "…"
#: The day that Excel counts from, and the maximum characters of a sheet's name.
_DAY_0 = datetime(1899, 12, 30)
_MAX_NAME = 31
#: The places of formats in `_STYLES`.
_HEAD_STYLE, _TEXT_STYLE, _TIME_STYLE = 1, 2, 3
#: Characters that XML cannot hold, escaped as Excel does it; text in the form of such an escape is escaped too.
_SPECIAL = re.compile("[\x00-\x08\x0b\x0c\x0d\x0e-\x1f\ufffe\uffff]|_(?=x[0-9A-Fa-f]{4}_)")
_XML = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>'
_OPEN = "http://schemas.openxmlformats.org"
_SHEET = f"{_OPEN}/spreadsheetml/2006/main"
_OFFICE = f"{_OPEN}/officeDocument/2006/relationships"
_TYPES = "application/vnd.openxmlformats-officedocument.spreadsheetml"
_STYLE = '<xf numFmtId="{}" fontId="{}" fillId="0" borderId="0" xfId="0" applyNumberFormat="1" applyFont="1"'
_STYLE += ' applyAlignment="1"><alignment vertical="top" wrapText="1"/></xf>'
_PLAIN_STYLE = '<xf numFmtId="0" fontId="0" fillId="0" borderId="0"/>'
_STYLES = (
    f'<styleSheet xmlns="{_SHEET}"><numFmts count="1">'
    '<numFmt numFmtId="164" formatCode="yyyy-mm-dd hh:mm:ss"/></numFmts>'
    '<fonts count="2"><font><sz val="11"/><name val="Calibri"/></font>'
    '<font><b/><sz val="11"/><name val="Calibri"/></font></fonts>'
    '<fills count="2"><fill><patternFill patternType="none"/></fill>'
    '<fill><patternFill patternType="gray125"/></fill></fills>'
    '<borders count="1"><border><left/><right/><top/><bottom/><diagonal/></border></borders>'
    f'<cellStyleXfs count="1">{_PLAIN_STYLE}</cellStyleXfs><cellXfs count="4">{_PLAIN_STYLE}'
    f"{_STYLE.format(0, 1)}{_STYLE.format(0, 0)}{_STYLE.format(164, 0)}</cellXfs>"
    '<cellStyles count="1"><cellStyle name="Normal" xfId="0" builtinId="0"/></cellStyles></styleSheet>'
)
#: The parts of a workbook beside its sheet.
_PARTS = {
    "[Content_Types].xml": f'<Types xmlns="{_OPEN}/package/2006/content-types">'
    '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    f'<Override PartName="/xl/workbook.xml" ContentType="{_TYPES}.sheet.main+xml"/>'
    f'<Override PartName="/xl/styles.xml" ContentType="{_TYPES}.styles+xml"/>'
    f'<Override PartName="/xl/worksheets/sheet1.xml" ContentType="{_TYPES}.worksheet+xml"/></Types>',
    "_rels/.rels": f'<Relationships xmlns="{_OPEN}/package/2006/relationships">'
    f'<Relationship Id="rId1" Type="{_OFFICE}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
    "xl/workbook.xml": f'<workbook xmlns="{_SHEET}" xmlns:r="{_OFFICE}"><bookViews><workbookView/></bookViews><sheets>'
    '<sheet name="{name}" sheetId="1" r:id="rId1"/></sheets></workbook>',
    "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{_OPEN}/package/2006/relationships">'
    f'<Relationship Id="rId1" Type="{_OFFICE}/worksheet" Target="worksheets/sheet1.xml"/>'
    f'<Relationship Id="rId2" Type="{_OFFICE}/styles" Target="styles.xml"/></Relationships>',
    "xl/styles.xml": _STYLES,
}
#: Before the widths and the rows: the first row stays in sight.
_HEAD = (
    f'<worksheet xmlns="{_SHEET}"><sheetViews><sheetView workbookViewId="0">'
    '<pane ySplit="1" topLeftCell="A2" activePane="bottomLeft" state="frozen"/></sheetView></sheetViews>'
)


def workbook_pieces(
    rows: Iterable[Sequence[Cell]], *, name: str = "results", widths: Sequence[int] = ()
) -> Iterator[bytes]:
    """Yield a workbook with these rows, one piece after each of them.

    `name` is the sheet's, `widths` those of the first columns in characters. A longer text than `MAX_CELL` is cut.
    """
    out = _Pieces()
    with ZipFile(out, "w", ZIP_DEFLATED) as archive:
        for path, xml in _PARTS.items():
            archive.writestr(_part(path), _XML + xml.replace("{name}", escape(name[:_MAX_NAME])))
        with archive.open(_part("xl/worksheets/sheet1.xml"), "w", force_zip64=True) as sheet:
            sheet.write((_XML + _HEAD + _columns(widths) + "<sheetData>").encode())
            style = _HEAD_STYLE
            for row in rows:
                sheet.write(f"<row>{''.join(_cell(value, style) for value in row)}</row>".encode())
                yield out.taken()
                style = _TEXT_STYLE
            sheet.write(b"</sheetData></worksheet>")
    yield out.taken()


class _Pieces(RawIOBase):
    """Buffers the bytes written since the last `taken`; it cannot seek, so the archive is written front to back."""

    def __init__(self) -> None:
        self._written = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, piece: Any) -> int:
        self._written += piece
        return len(piece)

    def taken(self) -> bytes:
        piece = bytes(self._written)
        self._written.clear()
        return piece


def _part(name: str) -> ZipInfo:
    """Return a part without the present time, so that equal sheets are equal files."""
    part = ZipInfo(name)
    part.compress_type = ZIP_DEFLATED
    return part


def _columns(widths: Sequence[int]) -> str:
    columns = (f'<col min="{at}" max="{at}" width="{width}" customWidth="1"/>' for at, width in enumerate(widths, 1))
    return f"<cols>{''.join(columns)}</cols>" if widths else ""


def _cell(value: Cell, style: int) -> str:
    if isinstance(value, datetime):
        return f'<c s="{_TIME_STYLE}"><v>{(value - _DAY_0) / timedelta(days=1):.9f}</v></c>'
    if isinstance(value, int | float):
        return f'<c s="{style}"><v>{value}</v></c>'
    if not value:
        return "<c/>"
    text = value if len(value) <= MAX_CELL else value[: MAX_CELL - 1] + _CUT
    sound = _SPECIAL.sub(lambda found: f"_x{ord(found[0]):04X}_", text.replace("\r\n", "\n"))
    # A half surrogate pair cannot be encoded.
    safe = escape(sound, quote=False).encode("utf-8", "replace").decode()
    return f'<c s="{style}" t="inlineStr"><is><t xml:space="preserve">{safe}</t></is></c>'

"""Writes an Excel workbook with one sheet piece by piece: a sheet of any length needs the memory of a row.

openpyxl's write-only mode needs a file for the sheet, and compresses it in one go, in which time no other request
would be served. Strings are in their cells (inline), so that no table of strings has to be kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from io import RawIOBase
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

#: Maximum characters of a cell: Excel calls a workbook with a longer one damaged.
MAX_CELL = 32_767

_CUT = "…"
#: Characters that XML cannot hold, escaped as Excel does it; text in the form of such an escape is escaped too.
_SPECIAL = re.compile("[\x00-\x08\x0b\x0c\x0d\x0e-\x1f\ufffe\uffff]|_(?=x[0-9A-Fa-f]{4}_)")
_XML = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>'
_OPEN = "http://schemas.openxmlformats.org"
_SHEET = f"{_OPEN}/spreadsheetml/2006/main"
_OFFICE = f"{_OPEN}/officeDocument/2006/relationships"
_TYPES = "application/vnd.openxmlformats-officedocument.spreadsheetml"
#: The parts of a workbook beside its sheet.
_PARTS = {
    "[Content_Types].xml": f'<Types xmlns="{_OPEN}/package/2006/content-types">'
    '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    f'<Override PartName="/xl/workbook.xml" ContentType="{_TYPES}.sheet.main+xml"/>'
    f'<Override PartName="/xl/worksheets/sheet1.xml" ContentType="{_TYPES}.worksheet+xml"/></Types>',
    "_rels/.rels": f'<Relationships xmlns="{_OPEN}/package/2006/relationships">'
    f'<Relationship Id="rId1" Type="{_OFFICE}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
    "xl/workbook.xml": f'<workbook xmlns="{_SHEET}" xmlns:r="{_OFFICE}"><bookViews><workbookView/></bookViews><sheets>'
    '<sheet name="results" sheetId="1" r:id="rId1"/></sheets></workbook>',
    "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{_OPEN}/package/2006/relationships">'
    f'<Relationship Id="rId1" Type="{_OFFICE}/worksheet" Target="worksheets/sheet1.xml"/></Relationships>',
}
#: Before the rows: the first row stays in sight.
_HEAD = (
    f'<worksheet xmlns="{_SHEET}"><sheetViews><sheetView workbookViewId="0">'
    '<pane ySplit="1" topLeftCell="A2" activePane="bottomLeft" state="frozen"/></sheetView></sheetViews><sheetData>'
)


def workbook_pieces(rows: Iterable[Sequence[str | int]]) -> Iterator[bytes]:
    """Yield a workbook with these rows, one piece after each of them; numbers are numbers, all else is text.

    Text is never a formula. A longer text than `MAX_CELL` is cut.
    """
    out = _Pieces()
    with ZipFile(out, "w", ZIP_DEFLATED) as archive:
        for name, xml in _PARTS.items():
            archive.writestr(_part(name), _XML + xml)
        with archive.open(_part("xl/worksheets/sheet1.xml"), "w", force_zip64=True) as sheet:
            sheet.write((_XML + _HEAD).encode())
            for row in rows:
                sheet.write(f"<row>{''.join(map(_cell, row))}</row>".encode())
                yield out.taken()
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


def _cell(value: str | int) -> str:
    if isinstance(value, int):
        return f"<c><v>{value}</v></c>"
    if not value:
        return "<c/>"
    text = value if len(value) <= MAX_CELL else value[: MAX_CELL - 1] + _CUT
    sound = _SPECIAL.sub(lambda found: f"_x{ord(found[0]):04X}_", text.replace("\r\n", "\n"))
    # A half surrogate pair cannot be encoded.
    safe = escape(sound, quote=False).encode("utf-8", "replace").decode()
    return f'<c t="inlineStr"><is><t xml:space="preserve">{safe}</t></is></c>'

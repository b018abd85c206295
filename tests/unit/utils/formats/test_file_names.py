"""File names of Content-Disposition: RFC 5987, RFC 6266 and what stores send instead."""

from __future__ import annotations

import pytest

from utils.formats.file_names import MOST_CHARS, disposition_name


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ('attachment; filename="report.pdf"', "report.pdf"),
        ("attachment; filename=report.pdf", "report.pdf"),
        ("attachment; filename*=UTF-8''%E6%8A%A5%E5%91%8A.pdf", "报告.pdf"),
        ("attachment; filename*=utf-8'zh'%E6%8A%A5.pdf; filename=\"x.pdf\"", "报.pdf"),
        ("attachment; filename=\"x.pdf\"; filename*=UTF-8''%E6%8A%A5.pdf", "报.pdf"),
        ("attachment; filename*=GB18030''%B1%A8.pdf", "报.pdf"),
        ("attachment; filename*=nonsense''%E6.pdf; filename=x.pdf", "x.pdf"),
        ('attachment; filename="%E6%8A%A5.pdf"', "报.pdf"),
        ('attachment; filename="报.pdf"'.encode().decode("latin-1"), "报.pdf"),
        ('attachment; filename="../../etc/passwd"', "passwd"),
        ('attachment; filename="C:\\\\temp\\\\x.pdf"', "x.pdf"),
        ("attachment; filename*=UTF-8''a%0d%0aSet-Cookie%3A%20x", "aSet-Cookie_ x"),
        ("attachment; filename*=UTF-8''..%2f..%2fx", "x"),
        ("attachment; filename*=UTF-8''evil%E2%80%AEgpj.exe", "evilgpj.exe"),
        ("attachment", ""),
        ("", ""),
        ('attachment; filename=".."', ""),
        ('attachment; filename="a\r\nb.pdf"', "a b.pdf"),
    ],
)
def test_a_name_is_read(header: str, name: str) -> None:
    """The name is one component of a path, without control characters."""
    assert disposition_name(header).replace("  ", " ") == name


def test_a_long_name_keeps_its_suffix() -> None:
    """The suffix tells the type."""
    name = disposition_name(f'attachment; filename="{"x" * 500}.pdf"')

    assert len(name) == MOST_CHARS
    assert name.endswith(".pdf")

"""Read a file's name from the HTTP header `Content-Disposition` (RFC 6266, RFC 5987) as one component of a path."""

from __future__ import annotations

import re
import unicodedata
from contextlib import suppress
from email.message import Message
from urllib.parse import unquote, unquote_to_bytes

#: Characters of the longest name; the end with its suffix is kept.
MOST_CHARS = 120
_EXTENDED = re.compile(r"filename\*\s*=\s*([\w!#$%&+^`{}~.-]+)'[^']*'([^;\s]*)", re.IGNORECASE)
#: Path separators, and characters with a meaning in shells, file systems or HTML.
_UNSAFE = re.compile(r'[\\/:*?"<>|\x00-\x1f\x7f]+')


def disposition_name(header: str) -> str:
    """Return the file name of the header's value; "" if it has none that can be read.

    `filename*` counts before `filename`. A `filename` in percent-encoding or in raw UTF-8 bytes is read too.
    """
    if found := _EXTENDED.search(header):
        try:
            return plain_name(unquote_to_bytes(found[2]).decode(found[1]))
        except (LookupError, UnicodeDecodeError):
            header = header.replace(found[0], "")
    message = Message()
    message["Content-Disposition"] = header.replace("\r", " ").replace("\n", " ")
    name = message.get_param("filename", "", "content-disposition")
    return plain_name(_decoded(name)) if isinstance(name, str) else ""


def plain_name(name: str) -> str:
    """Return a name as one component of a path: no folders, no control characters, `MOST_CHARS` at most."""
    last = re.split(r"[\\/]", name)[-1]
    shown = "".join(char for char in last if unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Co", "Cn"))
    return _UNSAFE.sub("_", shown).strip(" .")[-MOST_CHARS:]


def _decoded(name: str) -> str:
    """Return a plain `filename`: http.client decodes the header's bytes as Latin-1."""
    with suppress(UnicodeEncodeError, UnicodeDecodeError):
        name = name.encode("latin-1").decode("utf-8")
    return unquote(name) if "%" in name else name

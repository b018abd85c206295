"""As what WeCom shows a file that is sent: a picture, a video, a voice message, or a file to download."""

from __future__ import annotations

from typing import Literal

from services.files.kinds import recognized

OutgoingKind = Literal["image", "video", "voice", "file"]

_MIB = 1024 * 1024
#: Bytes of the largest file; more are not sent.
MAX_FILE = 20 * _MIB
#: By the ending that the first bytes tell: the kind, and the bytes up to which WeCom takes it as that kind.
_KINDS: dict[str, tuple[OutgoingKind, int]] = {
    "jpg": ("image", 2 * _MIB),
    "png": ("image", 2 * _MIB),
    "mp4": ("video", 10 * _MIB),
    "amr": ("voice", 2 * _MIB),
}


def outgoing_kind(content: bytes) -> OutgoingKind:
    """Return the kind by the first bytes; what is too large for its kind, or unknown, is a file."""
    kind, most = _KINDS.get(recognized("", content, "file").ending, ("file", 0))
    return kind if len(content) <= most else "file"

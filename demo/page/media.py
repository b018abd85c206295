"""The messages of the page that are more than a text; words that the person typed go along."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from demo.wecom.long_connection.user import SimulatedUser
from demo.wecom.samples import CLIP, SHEET, SHEET_NAME, photo
from demo.wecom.simulator import Bubble

#: What is spoken where nothing was typed.
_SPOKEN = "年假怎么申请"


def _photo(user: SimulatedUser, words: str) -> Bubble:
    return user.sends_mixed(words, photo()) if words else user.sends_image(photo())


def _file(user: SimulatedUser, words: str) -> Bubble:
    sheet = user.file_message("file", SHEET, name=SHEET_NAME)
    # A file has no words of its own; with words it is quoted, as in a group.
    return user.quotes(sheet, words) if words else user.shows(sheet)


def _video(user: SimulatedUser, words: str) -> Bubble:
    clip = user.file_message("video", CLIP)
    return user.quotes(clip, words) if words else user.shows(clip)


def _voice(user: SimulatedUser, words: str) -> Bubble:
    return user.sends_voice(words or _SPOKEN)


def _quote(user: SimulatedUser, words: str) -> Bubble:
    return user.quotes(user.mixed_message("这是去年的统计", photo()), words)


#: What sends each kind of message.
SENDS: Mapping[str, Callable[[SimulatedUser, str], Bubble]] = {
    "photo": _photo,
    "file": _file,
    "video": _video,
    "voice": _voice,
    "quote": _quote,
}

"""Pictures of other hosts in texts that outlive their streams: fetched each time they are shown, and kept nowhere.

    /files/u<sealed end and address of the picture>

A link is sealed, so only the gateway can make one, and nobody reads the picture's address in it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from services import metrics
from services.errors import FetchError, ProviderError, StoreUnavailable
from services.files.collection import FETCH_SECONDS, PICTURES_BYTES
from services.files.links import FOLDER
from services.files.reading import FileContent, FileReader, Room
from services.files.sources import Source
from utils.deadline import Deadline
from utils.keyring import Keyring, keys_of
from utils.markdown.pictures import MOST_ADDRESS
from utils.sealed import seal, unseal_any

#: The first character of a link's token.
MARK = "u"
#: Seconds that a link works.
LINK_SECONDS = 3600.0
#: Base64 of a token that stands in an address.
_IN_ADDRESS = str.maketrans("+/", "-_")
_SEALED = str.maketrans("-_", "+/")


class ForeignPictures:
    """Makes the links and opens them, on every replica."""

    def __init__(
        self, keys: Keyring, reader: FileReader, *, max_bytes: int, clock: Callable[[], float] = time.time
    ) -> None:
        """`keys` seal the links, a picture has up to `max_bytes`; `clock`: seconds since 1970."""
        self._keys = keys
        self._reader = reader
        self._max_bytes = max_bytes
        self._clock = clock

    def path(self, url: str) -> str:
        """Return the path of a picture on this server; "" where the address is too long or the key out of reach."""
        if len(url.encode()) > MOST_ADDRESS:
            return ""
        try:
            sealed = seal(keys_of(self._keys)[0], f"{int(self._clock() + LINK_SECONDS)} {url}")
        except StoreUnavailable:
            return ""
        return f"{FOLDER}{MARK}{sealed.translate(_IN_ADDRESS).rstrip('=')}"

    def read(self, token: str) -> FileContent | None:
        """Return the picture of a token; None if the token is not ours or has expired, or the picture cannot be had.

        Raises:
            StoreUnavailable: the key is in Redis, which is away.
        """
        url = self._opened(token)
        if not url:
            return None
        try:
            room = Room(self._max_bytes, PICTURES_BYTES, link=False)
            found = self._reader.read(Source(url, "", is_picture=True), room, Deadline(FETCH_SECONDS), root="")
        except (FetchError, ProviderError) as exc:
            metrics.ANSWER_FILES.labels(exc.code).inc()
            return None
        metrics.ANSWER_FILES.labels("picture").inc()
        return found

    def _opened(self, token: str) -> str:
        """Return the address in a token, "" if it is not ours or has expired."""
        sealed = token.removeprefix(MARK).translate(_SEALED)
        try:
            expiry, url = unseal_any(keys_of(self._keys), sealed + "=" * (-len(sealed) % 4)).split(" ", 1)
        except ValueError:
            return ""
        return url if self._clock() < int(expiry) else ""

"""The base of all errors of this product, and the one about settings. The tree is drawn in `services/errors.py`."""

from __future__ import annotations


class LaibaoError(Exception):
    """The base class. `code` is stable and may be shown to users; the message is for the log."""

    code = "unknown"
    #: The HTTP status of a reply that reports this error.
    status = 500

    def __init__(self, message: str = "", *, code: str = "") -> None:
        super().__init__(message or code or self.code)
        if code:
            self.code = code


class SettingsError(LaibaoError):
    """A setting is missing or wrong. The message names the variable, the value and the expected form."""

    code = "settings"

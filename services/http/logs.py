"""Keeps secrets in addresses out of the log lines of urllib3."""

from __future__ import annotations

import logging


def hide_parameters() -> None:
    """Cut the parameters off the address that urllib3 logs of a reply whose headers it cannot read, from now on."""
    logging.getLogger("urllib3.connection").addFilter(_without_parameters)


def _without_parameters(record: logging.LogRecord) -> bool:
    if isinstance(record.args, tuple):
        record.args = tuple(a.partition("?")[0] if isinstance(a, str) else a for a in record.args)
    return True

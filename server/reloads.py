"""What SIGHUP changes: the new settings are checked before gunicorn reloads, and wrong ones change nothing.

The master keeps the settings that it has checked, and workers inherit them when they are forked. A worker that is
started later, because another one died, therefore has the same settings, even if `.env` is wrong by then.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, NoReturn, TextIO

from config.checks import RAG_PROVIDERS, SEARCH_PROVIDERS
from config.errors import SettingsError
from config.problems import Invalid, Problem
from config.settings import Settings
from server.startup import load_checked

if TYPE_CHECKING:
    from gunicorn.arbiter import Arbiter

#: Seconds within which the parts of a replica must be built with new settings; a few are needed.
BUILD_SECONDS = 30
#: What the child process writes when it has built them; otherwise it writes the reason.
_BUILT = "built"

#: The settings of this master and of the workers that it forks from now on.
_checked: Settings | None = None


def checked_settings() -> Settings:
    """Return the settings of this process; the first call loads and checks them.

    Raises:
        SettingsError: a value is missing or wrong, or a folder is not writable.
    """
    global _checked
    if _checked is None:
        _checked = load_checked()
    return _checked


def guard(arbiter: Arbiter) -> None:
    """Let SIGHUP reload this arbiter only with right settings; otherwise it logs one line and changes nothing.

    gunicorn has no hook before a reload, and an error during a reload ends the master with all its workers.
    """
    reload = arbiter.handle_hup

    def handle_hup() -> None:
        global _checked
        try:
            settings = load_checked()
            _check_addresses(checked_settings(), settings)
            _check_build(settings)
        except (SettingsError, OSError) as exc:
            arbiter.log.error("wechatlaibao: not reloaded, the settings from before stay: %s", exc)
            return
        _checked = settings
        reload()

    arbiter.handle_hup = handle_hup


def check_first_build(settings: Settings) -> None:
    """Build the parts of a replica before the start where a file of rules or another package may be wrong.

    All else is checked by the settings alone, and a build takes a second.

    Raises:
        SettingsError: they cannot be built.
    """
    bots = settings.bots.values()
    files = [settings.access_file, settings.departments_file, settings.words_file, *(bot.words_file for bot in bots)]
    providers = {name for bot in bots for name in (bot.provider.rag_provider, bot.provider.search_provider) if name}
    if any(files) or providers - {*RAG_PROVIDERS, *SEARCH_PROVIDERS}:
        _check_build(settings)


def _check_addresses(old: Settings, new: Settings) -> None:
    """Check that a reload keeps the addresses: old workers still listen on theirs while gunicorn would bind new ones.

    Raises:
        Invalid: an address changes.
    """
    changed = [name for name in ("host", "port", "ops_port") if getattr(old, name) != getattr(new, name)]
    if changed:
        raise Invalid(
            Problem(name.upper(), str(getattr(new, name) or "none"), f"{getattr(old, name) or 'none'} until a restart")
            for name in changed
        )


def _check_build(settings: Settings) -> None:
    """Build the parts of a replica in a child process, which imports providers of other packages as workers do.

    Raises:
        SettingsError: they cannot be built.
    """
    reading, writing = os.pipe()
    # As files, because gevent's os.close waits for an event loop, which the master does not run.
    with open(reading, encoding="utf-8") as reader, open(writing, "w", encoding="utf-8") as writer:
        if not os.fork():
            _build(settings, writer)
        writer.close()
        reason = reader.read()
    if reason != _BUILT:
        raise SettingsError(reason or f"the application could not be built within {BUILD_SECONDS} s")


def _build(settings: Settings, writer: TextIO) -> NoReturn:
    """Build them, write the outcome and end this process, which must not go on as a second arbiter."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(BUILD_SECONDS)
    try:
        # Imported here: the master has none of the application's modules, so that new workers import them anew.
        from bootstrap.container import Container
        from services.ops.metrics_files import count_in_memory

        count_in_memory()
        Container(settings)
        outcome = _BUILT
    except SettingsError as exc:
        outcome = str(exc)
    except BaseException as exc:
        outcome = f"the application cannot be built: {type(exc).__name__}"
    writer.write(outcome)
    writer.flush()
    os._exit(0)

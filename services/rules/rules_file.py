"""A file of rules, read at the start and again after each change.

A missing or broken file stops the start. Later it changes nothing: the last good rules stay in force, and the problem
is in the log, in `wechatlaibao_rules_broken`, in /health and in the doctor's report until the file can be read again.

A changed file is read once two looks have found it the same: an editor that writes in place empties it first, and the
rules of half a file, or of none, would be in force for a moment.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar, cast

from config.errors import SettingsError
from config.problems import Problem
from services import metrics
from services.rounds import Rounds
from services.rules.stored_rules import SETTINGS, Kind, Rules, RulesVersions

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Seconds between two looks at the files: a change is in force within five seconds on every replica.
LOOK_SECONDS = 1.0
STOP_SECONDS = 1.0
#: Bytes of a file of rules at most.
MOST_BYTES = 4 * 1024 * 1024


class RulesFile(Generic[T]):
    """The rules of one file. `rules` are the ones in force: read it anew for each question."""

    def __init__(self, setting: str, path: str, parse: Callable[[str], T]) -> None:
        """Read the file that the variable `setting` names; `parse` raises `ValueError` with what it expected.

        Raises:
            SettingsError: the file is missing or broken.
        """
        self.setting = setting
        self._path = Path(path)
        self._parse = parse
        #: Why the file cannot be read now; "" if it can.
        self.problem = ""
        #: The file's state when it was read, and that of the look before.
        self._read_at = self._last = self._state()
        try:
            self.rules = self._read()
        except ValueError as exc:
            raise SettingsError(str(Problem(setting, path, str(exc)))) from exc

    @property
    def at_hand(self) -> T:
        """The rules in force, as `Rules` has them."""
        return self.rules

    @property
    def name(self) -> str:
        """The file's name without its folder."""
        return self._path.name

    def look(self) -> None:
        """Read the file again if it has changed, and not since the last look."""
        before, self._last = self._last, self._state()
        if self._last == self._read_at or self._last != before:
            return
        self._read_at = self._last
        try:
            self.rules = self._read()
        except ValueError as exc:
            self.problem = str(exc)
            log.error("rules not read", extra={"setting": self.setting, "cause": self.problem})
        else:
            self.problem = ""
            log.info("rules read", extra={"setting": self.setting})
        metrics.RULES_BROKEN.labels(self.setting).set(bool(self.problem))

    def _read(self) -> T:
        try:
            with self._path.open("rb") as file:
                content = file.read(MOST_BYTES + 1)
        except OSError as exc:
            raise ValueError(f"a file that can be read ({exc.strerror})") from exc
        if len(content) > MOST_BYTES:
            raise ValueError(f"a file of at most {MOST_BYTES} bytes")
        try:
            return self._parse(content.decode("utf-8-sig"))
        except UnicodeDecodeError as exc:
            raise ValueError(f"UTF-8, which byte {exc.start} is not") from exc
        except RecursionError as exc:
            raise ValueError("a file that is nested less deeply") from exc

    def _state(self) -> tuple[int, ...]:
        """Return what changes with the file; a folder that Kubernetes mounts exchanges the file as a whole."""
        try:
            found = self._path.stat()
        except OSError:
            return ()
        return found.st_mtime_ns, found.st_size, found.st_ino


class RulesFiles:
    """The files of rules of one replica, of which several bots may share one, and the rules that are saved instead."""

    def __init__(self, versions: RulesVersions | None = None) -> None:
        """`versions` are the saved rules; None without a database."""
        self._files: dict[tuple[str, str], RulesFile[object]] = {}
        self._versions = versions
        self._rounds = Rounds("rules", self.look, pause=LOOK_SECONDS)

    def open(self, setting: str, path: str | None, parse: Callable[[str], T]) -> RulesFile[T] | None:
        """Return the file that a variable names, the same object for the same path; None where it names none.

        Raises:
            SettingsError: the file is missing or broken.
        """
        if not path:
            return None
        known = self._files.get((setting, path))
        file = cast(RulesFile[T], known) if known else RulesFile(setting, path, parse)
        self._files[setting, path] = cast(RulesFile[object], file)
        return file

    def of_kind(self, kind: Kind, path: str | None, parse: Callable[[str], T], without: T) -> Rules[T] | None:
        """Return the rules of a file, else those that are saved, which are `without` at first; None for neither.

        Raises:
            SettingsError: the file is missing or broken.
        """
        file = self.open(SETTINGS[kind], path, parse)
        return file or (self._versions.open(kind, parse, without) if self._versions else None)

    def start(self) -> None:
        if self._files:
            self._rounds.start()
        if self._versions:
            self._versions.start()

    def close(self) -> None:
        self._rounds.stop()
        self._rounds.join(STOP_SECONDS)
        if self._versions:
            self._versions.close()

    def __bool__(self) -> bool:
        return bool(self._files or self._versions)

    @property
    def files(self) -> Sequence[RulesFile[object]]:
        """All files."""
        return list(self._files.values())

    @property
    def problems(self) -> Sequence[str]:
        """What cannot be read now, each with its cause."""
        stored = self._versions.kinds.values() if self._versions else ()
        return [f"{each.setting}: expected {each.problem}" for each in (*self.files, *stored) if each.problem]

    def look(self) -> float:
        """Read the changed files again; return the seconds until the next look."""
        for each in self._files.values():
            each.look()
        return LOOK_SECONDS

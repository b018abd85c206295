"""The people who ask: authenticated, and described for the provider and for commands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from config.apps import OWN_APP
from services.channels import Channel
from services.errors import AuthError
from services.http.retries import attempts
from services.identity.callers import USER
from services.identity.name_store import NameStore
from services.models import Asker, Contact, Identity, Question, UserInfo
from services.rules.access import AccessRules
from services.rules.departments import Departments
from services.rules.stored_rules import Rules
from services.rules.visitors import Visitor
from utils.deadline import Deadline

#: Returns a person's entry in the company's directory by userid. Returns within a bounded time and never raises.
FindContact = Callable[[str], Contact]

#: Retries for an answer that was begun, and the pause before the first in seconds: over half a minute of pauses.
RETRIES, BACKOFF = 6, 1.0
#: Characters of the longest name that begins a question in a shared group.
MOST_SPEAKER = 64
#: Joins the names of a person's departments.
SEPARATOR = ", "


class Authenticator(Protocol):
    """Authenticates people of a directory, as `services.identity.auth_service.AuthService` does."""

    def authenticate(self, userid: str, corp: str = "") -> Identity: ...


class CallerAuthenticator(Protocol):
    """Checks the credentials of clients, as `services.identity.callers.Callers` does."""

    def identity(self, question: Question, *, accepts_api_keys: bool = False) -> Identity: ...

    def key_name(self, principal: str) -> str: ...


class Askers:
    """Authenticates the people who ask, and finds their names. One object serves the process, from many threads."""

    def __init__(
        self,
        auth: Authenticator,
        callers: CallerAuthenticator,
        directories: Mapping[str, FindContact],
        names: NameStore,
        *,
        access: Rules[AccessRules] | None = None,
        departments: Rules[Departments] | None = None,
    ) -> None:
        """Take the directory of each bot that has one. The names of people are stored in `names`, for commands.

        Without `access` everybody who is authenticated may ask; `departments` are those of a file of the company.
        """
        self._access = access
        self._departments = departments
        self._auth = auth
        self._callers = callers
        self._directories = directories
        self._names = names

    def identity(
        self, question: Question, channel: Channel, corp: str, deadline: Deadline, *, begun: bool = False
    ) -> Identity:
        """Authenticate the person who asks; `corp` is that of the question's bot.

        The provider was asked already for an answer that was `begun`: an outage of authentication is waited for.

        Raises:
            AuthError: the person may not ask, or authentication is not available.
        """
        retries = RETRIES if begun else 0
        for attempt in attempts(deadline, retries=retries, backoff=BACKOFF, may_retry=_is_away):
            with attempt:
                return self._identity(question, channel, corp)
        raise AssertionError("unreachable")

    def _identity(self, question: Question, channel: Channel, corp: str) -> Identity:
        if channel.authenticates == "directory":
            return self._auth.authenticate(question.principal, corp)
        return self._callers.identity(question, accepts_api_keys=channel.accepts_api_keys)

    def asker(self, question: Question, identity: Identity, channel: Channel, user: str) -> Asker:
        """Return the person who asks. `user` is the person's name for the provider, for channels without userids.

        Waits a bounded time for the directory, where the bot has one. Without it, and when it fails, name and
        department are those of the user record. The company's own file of departments comes before both.
        """
        contact = self._contact(question, channel)
        record = identity.user or UserInfo("")
        name = contact.name or record.user_name
        if name and channel.authenticates == "directory":
            self._names.note(question, name)
        return Asker(
            contact.userid or (question.principal if channel.authenticates == "directory" else user),
            name,
            self._filed(question, contact, channel) or contact.department or record.department,
            question.chat,
            "group" if question.chat else "single",
            question.bot,
            question.msgid,
        )

    def visitor(self, question: Question, channel: Channel, asker: Asker) -> Visitor:
        """Return the person who asks, as rules see it."""
        visitor, _ = self.stranger(question, channel)
        person = asker.userid if _listed(channel) else visitor.person
        return visitor._replace(
            person=person, departments=asker.department.split(SEPARATOR) if asker.department else ()
        )

    def admit(self, visitor: Visitor) -> str:
        """Check that the person may ask, by the rules of the company; return the app that answers.

        Raises:
            AuthError: `not_allowed`.
            AnswerError: `store_unavailable`, the rules are not known.
        """
        return self._access.rules.check(visitor) if self._access else OWN_APP

    def stranger(self, question: Question, channel: Channel) -> tuple[Visitor, bool]:
        """Return who asks, as far as the question tells, and whether the departments are known, without waiting."""
        is_user = question.principal.startswith(USER)
        person = question.principal.removeprefix(USER) if is_user or _listed(channel) else ""
        filed = self._filed(question, Contact(), channel)
        departments = tuple(filed.split(SEPARATOR)) if filed else ()
        key = "" if person else self._callers.key_name(question.principal)
        visitor = Visitor(question.bot, channel.name, person, departments, question.chat, key)
        return visitor, bool(filed) or not person

    def _filed(self, question: Question, contact: Contact, channel: Channel) -> str:
        """Return the departments that the company's file has of a person; "" for none."""
        if not self._departments or not _listed(channel):
            return ""
        known = self._departments.rules
        return SEPARATOR.join(known.get(contact.userid) or known.get(question.principal) or ())

    def _contact(self, question: Question, channel: Channel) -> Contact:
        find = self._directories.get(question.bot) if channel.authenticates == "directory" else None
        return find(question.principal) if find else Contact()


def _listed(channel: Channel) -> bool:
    """Tell whether the principals of a channel are userids of a directory."""
    return channel.authenticates == "directory"


def _is_away(error: BaseException) -> bool:
    return isinstance(error, AuthError) and error.code == "auth_unavailable"


def speaker_of(asker: Asker) -> str:
    """Return the name that a question in a shared group begins with: the person's name, else the userid.

    The name is one line without a colon, so that the text before the first ": " is always the speaker.
    """
    return _one_line(asker.name) or _one_line(asker.userid)


def _one_line(name: str) -> str:
    printable = "".join(letter if letter.isprintable() else " " for letter in name.replace(":", " "))
    return " ".join(printable.split())[:MOST_SPEAKER].rstrip()

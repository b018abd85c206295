"""Who asks: the facts of a message, of the user record and of WeCom's directory, for the provider and for commands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from services.channels import Channel
from services.identity.name_store import NameStore
from services.models import Asker, Contact, Identity, Question

#: Returns what a company's directory says about a userid. Returns within a bounded time and never raises.
FindContact = Callable[[str], Contact]

#: Characters of the longest name that begins a question in a shared group.
MOST_SPEAKER = 64


class Askers:
    """Tells who asks a question. One object serves the process, from many threads."""

    def __init__(self, directories: Mapping[str, FindContact] = MappingProxyType({}), names: NameStore | None = None):
        """Take the directory of each bot that has one. The names of people are stored in `names`, for commands."""
        self._directories = directories
        self._names = names

    def asker(self, question: Question, identity: Identity, channel: Channel, user: str) -> Asker:
        """Return who asks. `user` is the person's name for the provider, for channels without userids.

        Waits a bounded time for the directory, where the bot has one. Without it, and when it fails, the name is that
        of the user record, and the department is "".
        """
        contact = self._contact(question, channel)
        name = contact.name or (identity.user.user_name if identity.user else "")
        if self._names and name and channel.authenticates == "directory":
            self._names.note(question, name)
        return Asker(
            contact.userid or (question.principal if channel.authenticates == "directory" else user),
            name,
            contact.department,
            question.chat,
            "group" if question.chat else "single",
            question.bot,
            question.msgid,
        )

    def _contact(self, question: Question, channel: Channel) -> Contact:
        find = self._directories.get(question.bot) if channel.authenticates == "directory" else None
        return find(question.principal) if find else Contact()


def speaker_of(asker: Asker) -> str:
    """Return the name that a question in a shared group begins with: the person's name, else the userid.

    The name is one line without a colon, so that what is before the first ": " is always the speaker.
    """
    return _one_line(asker.name) or _one_line(asker.userid)


def _one_line(name: str) -> str:
    printable = "".join(letter if letter.isprintable() else " " for letter in name.replace(":", " "))
    return " ".join(printable.split())[:MOST_SPEAKER].rstrip()

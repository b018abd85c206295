"""A person of WeCom's directory."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Contact:
    """What WeCom's directory says about a person; each field is "" where it is unknown."""

    #: The plain userid; a callback may have an encrypted one.
    userid: str = ""
    name: str = ""
    #: The names of the departments, the main one first, joined by ", ".
    department: str = ""

"""How questions from realtime transcripts differ from those of other channels."""

from __future__ import annotations

from services.channels import Channel
from services.models import Question


def _name_of_session(question: Question) -> str:
    return f"ws-user-{question.session}"


REALTIME = Channel("realtime", end_user=_name_of_session, sockets=True, keeps_files="all")

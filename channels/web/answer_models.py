"""The models that requests and answers of several channels have in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

#: A name of one of the client's own users. It may be any printable text.
EndUser = Annotated[str, StringConstraints(max_length=128, pattern=r"^[^\x00-\x1f\x7f]*$")]


class AnswerSource(BaseModel):
    """A document or page that an answer is based on; members of the provider's own may follow."""

    model_config = ConfigDict(extra="allow", frozen=True)

    title: str = Field(description="Its name or, without one, its address.", examples=["员工手册.md"])
    url: str = Field(description='An http or https address; "" if it has none.', examples=["https://hr.example/leave"])
    snippet: str = Field(description="The beginning of the passage that was found.", examples=["年假十天。"])
    score: float | None = Field(description="How well it fits, as the provider counts; null if it did not say.")

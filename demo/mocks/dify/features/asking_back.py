"""The transcripts of a mock Dify that asks back: chatflows with Human Input nodes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from demo.mocks.dify.answers import answer_to, is_chinese
from demo.mocks.dify.features.forms import MockForm, RunPause
from demo.mocks.dify.wire import PING, Delay, Run, Step, pieces

LEAD = "这笔报销共 **5,000 元**，超过了直属主管的额度。"
ASKS = "要怎么处理？"
ACTIONS = (("approve", "同意"), ("reject", "驳回"), ("finance", "转交财务"))
#: The transcripts' texts in runs of English questions.
ENGLISH = {
    LEAD: "This claim is **¥5,000**, more than your manager may sign.",
    ASKS: "What shall happen with it?",
    "人工审核": "Review",
    "同意": "Approve",
    "驳回": "Reject",
    "转交财务": "Pass on to Finance",
    "真的吗？": "Are you sure?",
    "是": "Yes",
    "否": "No",
    "抄送给谁？": "Who gets a copy?",
    "主管": "Your manager",
}
COMMENT = {"type": "paragraph", "output_variable_name": "comment", "default": {"type": "constant", "value": ""}}
PRIORITY = {
    "type": "select",
    "output_variable_name": "priority",
    "option_source": {"type": "constant", "selector": [], "value": ["low", "high"]},
}
FILE = {"type": "file", "output_variable_name": "attachment", "allowed_file_types": ["document"]}

#: The token of a form that can be answered by mail only.
BY_MAIL = ""


def rest(question: str, title: str, inputs: Mapping[str, Any] | None = None) -> str:
    """Return the answer after a choice with this title."""
    chinese = is_chinese(question)
    given = "".join(f"{name}{'：' if chinese else ': '}{value}\n\n" for name, value in (inputs or {}).items())
    chosen = f"您选择了“{title}”。" if chinese else f"You chose “{title}”."
    return f"{chosen}\n\n{given}{answer_to(question)}"


def in_language(run: Run, text: str) -> str:
    return text if is_chinese(run.query) else ENGLISH.get(text, text)


def translated(run: Run, form: MockForm) -> MockForm:
    """Return a form in the language of the run's question; what is not its text stays."""
    content, *output = form.content.split("{{#", 1)
    words = "{{#".join([in_language(run, content), *output])
    actions = tuple((name, in_language(run, title)) for name, title in form.actions)
    return replace(form, content=words, actions=actions, node_title=in_language(run, form.node_title))


def form(run: Run) -> Iterator[Step]:
    yield from _asked(run, [MockForm(ASKS, ACTIONS)])


def form_with_comment(run: Run) -> Iterator[Step]:
    yield from _asked(run, [MockForm(ASKS + "{{#$output.comment#}}", ACTIONS, (COMMENT,))])


def form_with_inputs(run: Run) -> Iterator[Step]:
    yield from _asked(run, [MockForm(ASKS, ACTIONS, (COMMENT, PRIORITY))])


def form_with_file(run: Run) -> Iterator[Step]:
    yield from _asked(run, [MockForm(ASKS, ACTIONS, (FILE,))])


def form_by_mail(run: Run) -> Iterator[Step]:
    yield from _asked(run, [MockForm(ASKS, ACTIONS, token=BY_MAIL)])


def form_expires(run: Run) -> Iterator[Step]:
    yield from _asked(run, [MockForm(ASKS, ACTIONS, seconds=1.0)])


def form_twice(run: Run) -> Iterator[Step]:
    """Ask, and after the answer ask again."""
    yield from _asked(run, [MockForm(ASKS, ACTIONS)], [MockForm("真的吗？", (("yes", "是"), ("no", "否")))])


def two_forms(run: Run) -> Iterator[Step]:
    """Ask two things at once, as parallel branches do."""
    yield from _asked(run, [MockForm(ASKS, ACTIONS), MockForm("抄送给谁？", (("boss", "主管"),), node_id="cc")])


def form_without_words(run: Run) -> Iterator[Step]:
    """Ask before any text."""
    yield PING
    yield run.workflow_started()
    asked = [translated(run, MockForm(ASKS, ACTIONS))]
    yield RunPause(asked)
    yield from _finished(run, "", asked)


def _asked(run: Run, *pauses: list[MockForm]) -> Iterator[Step]:
    yield PING
    yield run.workflow_started()
    said = ""
    asked = [[translated(run, form) for form in forms] for forms in pauses]
    for number, forms in enumerate(asked):
        further = f"第 {number + 1} 问。" if is_chinese(run.query) else f"Question {number + 1}."
        lead = in_language(run, LEAD) if number == 0 else f"\n\n{further}"
        said += lead
        for text in pieces(lead, 3):
            yield run.piece(text)
            yield Delay(run.delay)
        run.saved = said
        yield RunPause(forms)
    yield from _finished(run, said, asked[-1])


def _finished(run: Run, said: str, forms: list[MockForm]) -> Iterator[Step]:
    """Play the answer after the last pause. The message goes on: its answer begins with what was said before."""
    titles = ("、" if is_chinese(run.query) else ", ").join(
        dict(each.actions)[each.submitted[0]] for each in forms if each.submitted
    )
    inputs = {name: value for each in forms if each.submitted for name, value in each.submitted[1].items()}
    text = rest(run.query, titles, inputs)
    run.answer = run.final = said + text
    for piece in pieces(text):
        yield run.piece(piece)
        yield Delay(run.delay)
    yield run.message_end()
    yield run.workflow_finished(answer=run.answer)

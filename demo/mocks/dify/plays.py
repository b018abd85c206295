"""The transcripts of the mock Dify: the events of each app type and each ending."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from demo.mocks.dify.wire import HANG, PING, Delay, Run, Step, pieces

Play = Callable[[Run], Iterator[Step]]


def chat(run: Run) -> Iterator[Step]:
    yield from run.say()
    yield run.message_end()


def _agent_thoughts(run: Run) -> Iterator[Step]:
    thought = {"id": "th1", "position": 1, "thought": "", "tool_labels": {}, "message_files": []}
    yield run.event("agent_thought", **thought, observation="", tool="", tool_input="")
    used = {"observation": '{"dalle3": "ok"}', "tool": "dalle3", "tool_input": '{"dalle3": {"prompt": "cat"}}'}
    yield run.event("agent_thought", **thought, **used)
    yield run.file("9d1c.png")


def agent_chat(run: Run) -> Iterator[Step]:
    yield from _agent_thoughts(run)
    yield run.piece("", event="agent_message")
    yield from run.say(event="agent_message")
    yield run.message_end({"usage": {"total_tokens": 184, "latency": 6.2}})


def pictures(run: Run) -> Iterator[Step]:
    """Play an agent that draws: a picture beside the text, the others within it."""
    yield run.file("9d1c.png")
    yield from run.say(event="agent_message")
    yield run.message_end({"usage": {"total_tokens": 184, "latency": 6.2}})


def picture_moderated(run: Run) -> Iterator[Step]:
    yield run.file("9d1c.png")
    yield from moderation(run)


def only_picture(run: Run) -> Iterator[Step]:
    yield run.file("9d1c.png")
    yield run.message_end({"usage": {"total_tokens": 184, "latency": 6.2}})


def new_agent(run: Run) -> Iterator[Step]:
    yield from _agent_thoughts(run)
    yield from run.say(event="agent_message")
    yield run.piece(run.answer)
    yield run.message_end({"usage": {"total_tokens": 184, "latency": 6.2}})


def new_agent_differs(run: Run) -> Iterator[Step]:
    yield run.piece("让我想一想……", event="agent_message")
    yield from new_agent(run)


def _workflow(run: Run) -> Iterator[Step]:
    yield PING
    yield run.workflow_started()
    yield run.node("node_started", inputs=None, predecessor_node_id=None)
    yield PING
    yield run.node("node_finished", status="succeeded", error=None, elapsed_time=10.4, outputs=None, files=[])
    yield from run.say(from_variable_selector=["llm", "text"])


def chatflow(run: Run) -> Iterator[Step]:
    yield from _workflow(run)
    yield run.message_end()
    yield run.workflow_finished(answer=run.answer)


def chatflow_old_order(run: Run) -> Iterator[Step]:
    yield from _workflow(run)
    yield run.workflow_finished(answer=run.answer)
    yield run.message_end()


def chatflow_paused(run: Run) -> Iterator[Step]:
    yield PING
    yield run.workflow_started()
    form = {"form_id": "fo1", "node_id": "hi", "node_title": "人工审核", "form_content": "同意吗？", "inputs": []}
    yield run.workflow("human_input_required", **form, actions=[{"id": "yes", "title": "同意"}], form_token=None)
    reasons = [{"TYPE": "human_input_required", **form}]
    yield run.workflow("workflow_paused", workflow_run_id=run.run_id, paused_nodes=["hi"], reasons=reasons)


def partial(run: Run) -> Iterator[Step]:
    yield run.piece(pieces(run.answer)[0])


def stopped(run: Run) -> Iterator[Step]:
    """Play the end of a run that was stopped."""
    yield run.workflow_finished("stopped")
    yield run.message_end()


def chatflow_stopped(run: Run) -> Iterator[Step]:
    yield run.workflow_started()
    yield from partial(run)
    yield from stopped(run)


def chat_stopped(run: Run) -> Iterator[Step]:
    yield from partial(run)
    yield run.message_end()


def chatflow_stopped_workflow_only(run: Run) -> Iterator[Step]:
    yield run.workflow_started()
    yield from partial(run)
    yield run.workflow_finished("stopped")


def annotation(run: Run) -> Iterator[Step]:
    yield run.workflow_started()
    yield run.piece(run.answer)
    yield run.message_end({"annotation_reply": {"id": "an1", "account": {"name": "admin"}}})


def chatflow_without_message_end(run: Run) -> Iterator[Step]:
    yield from _workflow(run)
    yield run.workflow_finished(answer=run.answer)


def chatflow_without_message_end_open(run: Run) -> Iterator[Step]:
    yield from chatflow_without_message_end(run)
    yield HANG


def chatflow_outputs_only(run: Run) -> Iterator[Step]:
    yield run.workflow_started()
    yield run.workflow_finished("partial-succeeded", answer=run.answer)


def chatflow_without_workflow_finished(run: Run) -> Iterator[Step]:
    yield from _workflow(run)
    yield run.message_end()


def open_after_end(run: Run) -> Iterator[Step]:
    yield from chat(run)
    yield HANG


def moderation(run: Run) -> Iterator[Step]:
    yield from partial(run)
    yield run.event("message_replace", answer=MODERATED, reason="output_moderation")
    yield run.message_end()


def chatflow_moderated(run: Run) -> Iterator[Step]:
    """Play a chatflow whose answer is moderated at its end; the workflow's outputs keep the original text."""
    yield from _workflow(run)
    yield run.event("message_replace", answer=MODERATED, reason="output_moderation")
    yield run.message_end()
    yield run.workflow_finished(answer=run.answer)


MODERATED = "这个问题我不能回答。"


#: The nodes of a chatflow that takes its time: type and title.
NODES = (
    ("start", "开始"),
    ("question-classifier", "理解问题"),
    ("knowledge-retrieval", "查知识库"),
    ("llm", "撰写回答"),
)


def steps(run: Run) -> Iterator[Step]:
    """Play a chatflow whose nodes run for a while before the first text."""
    yield run.workflow_started()
    for index, (kind, title) in enumerate(NODES, 1):
        node: dict[str, Any] = {"id": f"ne{index}", "node_id": f"n{index}", "node_type": kind, "index": index}
        yield run.node("node_started", title=title, **node, inputs=None)
        yield Delay(0.0 if kind == "start" else 4 * run.slow)
        yield run.node("node_finished", title=title, **node, status="succeeded", error=None, outputs=None, files=[])
    yield from run.say()
    yield run.message_end()
    yield run.workflow_finished(answer=run.answer)


def slow(run: Run) -> Iterator[Step]:
    yield from _dripped(run, run.slow)


def late(run: Run) -> Iterator[Step]:
    yield from _dripped(run, 2 * run.slow)


def _dripped(run: Run, pause: float) -> Iterator[Step]:
    """Answer with a pause in seconds between two pieces."""
    yield PING
    yield Delay(2 * run.slow)
    yield run.workflow_started()
    yield from run.say(delay=pause)
    yield run.message_end()
    yield run.workflow_finished(answer=run.answer)

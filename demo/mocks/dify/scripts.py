"""The mock Dify's scripts by name: every app type, every way to end, every way to fail.

A question that contains `[[name]]` is answered by that script, any other by the mock's default.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

from demo.mocks.dify import faults, plays
from demo.mocks.dify.answers import answer_to, drawings, echo, formatted, whole_handbook, whole_library, with_card
from demo.mocks.dify.error_replies import ERROR_REPLIES, MockErrorReply
from demo.mocks.dify.features import asking_back
from demo.mocks.dify.plays import MODERATED, Play
from demo.mocks.dify.wire import Loss, pieces


@dataclass(frozen=True, slots=True)
class DifyScript:
    """One behaviour. `answer` returns the complete answer a client must receive; "" if the script ends without one."""

    play: Play
    #: A description: the last events, the transport, or the error reply.
    shows: str
    mode: str = "advanced-chat"
    answer: Callable[[str], str] = answer_to
    #: The text that the run sends, or would have sent without the fault.
    text: Callable[[str], str] = answer_to
    #: If False, the body has neither a length nor chunks: it ends with the connection.
    chunked: bool = True
    #: Rewrites the bytes of a step; each element of the result is written separately.
    cut: Callable[[bytes], list[bytes]] = lambda data: [data]
    error_reply: MockErrorReply | None = None
    #: How often a user's question gets the error reply before it is answered; None means always.
    error_times: int | None = None
    #: Played instead if the request names an unknown conversation; None sends 404.
    stale: Play | None = None
    #: Seconds until the response's headers are sent.
    headers_after: float = 0.0
    #: Whether the history has the answer only in the agent's thoughts.
    in_thoughts: bool = False
    #: Whether the stream breaks although Dify completes the answer.
    breaks: bool = False


def no_answer(question: str) -> str:
    return ""


def half_answer(question: str) -> str:
    return pieces(answer_to(question))[0]


def separators(question: str) -> str:
    return "一\u2028二\u2029三\x85四\x0b五"


def think(question: str) -> str:
    return "<think>先想想</think>" + answer_to(question)


def says(answer: Callable[[str], str], shows: str) -> DifyScript:
    return DifyScript(plays.chat, shows, "chat", answer, answer)


def replies_with_error(name: str, times: int | None = None) -> DifyScript:
    answer = no_answer if times is None else answer_to
    return DifyScript(plays.chatflow, f"HTTP {name}", answer=answer, error_reply=ERROR_REPLIES[name], error_times=times)


def fails(play: Play, shows: str, *, chunked: bool = True, headers_after: float = 0.0) -> DifyScript:
    return DifyScript(play, shows, answer=no_answer, chunked=chunked, headers_after=headers_after)


def crlf(data: bytes) -> list[bytes]:
    return [data.replace(b"\n", b"\r\n")]


def bytewise(data: bytes) -> list[bytes]:
    return [data[place : place + 1] for place in range(len(data))]


CLOSINGS: dict[str, DifyScript] = {
    "chat": DifyScript(plays.chat, "message* message_end", "chat"),
    "agent-chat": DifyScript(plays.agent_chat, "agent_message* message_end", "agent-chat"),
    "agent-thoughts": DifyScript(plays.agent_chat, "agent_message* message_end", "agent-chat", in_thoughts=True),
    "new-agent": DifyScript(plays.new_agent, "agent_message* message message_end", "agent"),
    "new-agent-differs": DifyScript(plays.new_agent_differs, "agent_message* another message, message_end", "agent"),
    "chatflow": DifyScript(plays.chatflow, "message_end workflow_finished(succeeded)"),
    "chatflow-old-order": DifyScript(plays.chatflow_old_order, "workflow_finished(succeeded) message_end"),
    "chatflow-moderated": DifyScript(
        plays.chatflow_moderated, "message_replace message_end workflow_finished", answer=lambda question: MODERATED
    ),
    "chatflow-failed": fails(faults.chatflow_failed, "workflow_finished(failed) error"),
    "chatflow-failed-quietly": fails(faults.chatflow_failed_quietly, "workflow_finished(failed) and no error"),
    "chatflow-failed-open": fails(faults.chatflow_failed_open, "workflow_finished(failed), socket left open"),
    "chatflow-paused": fails(plays.chatflow_paused, "human_input_required workflow_paused"),
    "stopped": DifyScript(plays.chatflow_stopped, "workflow_finished(stopped) message_end", answer=half_answer),
    "stopped-message-end": DifyScript(plays.chat_stopped, "message_end with a partial answer", "chat", half_answer),
    "stopped-workflow": DifyScript(
        plays.chatflow_stopped_workflow_only, "workflow_finished(stopped)", answer=half_answer
    ),
    "annotation": DifyScript(plays.annotation, "message_end and no workflow_finished, an annotation hit"),
    "no-message-end": DifyScript(plays.chatflow_without_message_end, "workflow_finished and no message_end"),
    "no-message-end-open": DifyScript(plays.chatflow_without_message_end_open, "no message_end, socket left open"),
    "outputs-only": DifyScript(
        plays.chatflow_outputs_only, "workflow_finished(partial-succeeded), its text in outputs"
    ),
    "no-workflow-finished": DifyScript(
        plays.chatflow_without_workflow_finished, "message_end and no workflow_finished"
    ),
    "open-after-end": DifyScript(plays.open_after_end, "message_end, socket left open", "chat"),
    "eof": fails(faults.eof_after_text, "end of the stream after text"),
    "eof-without-text": fails(faults.eof_without_text, "end of the stream before any text"),
    "error-event": fails(faults.error_event, "error"),
    "error-after-text": fails(faults.error_after_text, "error after text"),
    "error-without-code": fails(faults.error_without_code, "error without code and ids"),
}

TRANSPORTS: dict[str, DifyScript] = {
    "error-conversation": DifyScript(plays.chatflow, "error, conversation gone", stale=faults.error_conversation),
    "moderation": DifyScript(plays.moderation, "message_replace", answer=lambda question: MODERATED),
    "empty": fails(faults.empty, "success without text"),
    "ping-only": fails(faults.ping_only, "pings and nothing else"),
    "pings-after-text": fails(faults.pings_after_text, "pings and nothing else after the first text"),
    "stale-pings": DifyScript(plays.chatflow, "pings only, conversation gone", stale=faults.ping_only),
    "silent": fails(faults.silent, "headers and nothing else"),
    "no-headers": fails(faults.silent, "not even headers", headers_after=float("inf")),
    "slow": DifyScript(plays.slow, "an answer that takes its time"),
    "late": DifyScript(plays.late, "an answer that takes twice as long"),
    "steps": DifyScript(plays.steps, "nodes that run for a while, then text"),
    "drip-bytes": fails(faults.drip_bytes, "an event that never ends"),
    "drip-events": fails(faults.drip_events, "an answer that never ends"),
    "drop": fails(faults.drop, "connection reset after text"),
    "drop-at-once": fails(faults.drop_at_once, "connection reset before any event"),
    "drop-in-a-line": fails(faults.drop_in_a_line, "connection reset within a line"),
    "split-utf8": DifyScript(plays.chatflow, "every byte its own chunk", cut=bytewise),
    "crlf": DifyScript(plays.chatflow, "CRLF line ends", cut=crlf),
    "close-delimited": DifyScript(plays.chatflow, "body ends with the connection", chunked=False),
    "silent-close-delimited": fails(faults.silent, "headers of a body without length", chunked=False),
    "eof-close-delimited": fails(faults.eof_after_text, "end of a body without length after text", chunked=False),
    "glued": DifyScript(faults.glued, "no blank line between a ping and an event", "chat"),
    "no-space": DifyScript(faults.no_space, "a comment, and data: without the space", "chat"),
    "ascii": DifyScript(faults.ascii_escapes, "JSON in ASCII, as before 1.8", "chat"),
    "no-last-blank-line": DifyScript(faults.without_last_blank_line, "last event without its blank line", "chat"),
    "odd-events": DifyScript(faults.odd_events, "unknown, huge and malformed events"),
    "odd-metadata": DifyScript(faults.odd_metadata, "metadata of wrong types"),
    "endless-line": fails(faults.endless_line, "a line that never ends"),
    "damaged": DifyScript(faults.damaged, "a byte that is not UTF-8", "chat", lambda question: "好\ufffd的"),
    "separators": says(separators, "U+2028 and its like within the text"),
    "long": says(whole_handbook, "a text larger than a frame of WeCom"),
    "longest": says(whole_library, "a text larger than a frame and a late message of WeCom"),
    "pictures": DifyScript(plays.pictures, "pictures and a file", "agent-chat", drawings, drawings),
    "picture-moderated": DifyScript(
        plays.picture_moderated, "a picture, message_replace", "agent-chat", lambda question: MODERATED
    ),
    "only-picture": fails(plays.only_picture, "a picture and no text"),
    "card": says(with_card, "a block with a template card"),
    "formatted": says(formatted, "every element of Markdown that pages show"),
    "echo": says(echo, "the question"),
    "think": says(think, "reasoning tags within the text"),
}

#: Each of them pauses, and goes on when its form is submitted. `answer` is "": a client also receives our sentences.
ASKING_BACK: dict[str, DifyScript] = {
    "form": fails(asking_back.form, "a form with three choices"),
    "form-comment": fails(asking_back.form_with_comment, "a form with choices and a text"),
    "form-inputs": fails(asking_back.form_with_inputs, "a form with choices, a text and a selection"),
    "form-file": fails(asking_back.form_with_file, "a form that wants a file"),
    "form-mail": fails(asking_back.form_by_mail, "a form that is sent by e-mail: no token"),
    "form-expires": fails(asking_back.form_expires, "a form that expires after a second"),
    "form-twice": fails(asking_back.form_twice, "a form, and another one after it"),
    "form-two": fails(asking_back.two_forms, "two forms at once"),
    "form-first": fails(asking_back.form_without_words, "a form before any text"),
}

RETRIED: dict[str, DifyScript] = {
    "429-once": replies_with_error("429-too_many_requests", times=1),
    "500-once": replies_with_error("500-internal_server_error", times=1),
    "502-once": replies_with_error("502-html", times=1),
}

#: Names such as chatflow-reset-middle. A chat has no `start`, because its first event already has text.
BROKEN: dict[str, DifyScript] = {
    f"{app}-{how}-{where}": DifyScript(
        faults.broken(play, how, where), f"{app}, {how} at {where}, the run goes on", mode, breaks=True
    )
    for app, play, mode, places in (
        ("chatflow", plays.chatflow, "advanced-chat", ("unheard", "start", "middle", "whole")),
        ("chat", plays.chat, "chat", ("unheard", "middle", "whole")),
    )
    for how in get_args(Loss)
    for where in places
}

SCRIPTS: dict[str, DifyScript] = {
    **CLOSINGS,
    **TRANSPORTS,
    **RETRIED,
    **BROKEN,
    **ASKING_BACK,
    **{name: replies_with_error(name) for name in ERROR_REPLIES},
    "normal": CLOSINGS["chatflow"],
    "error": CLOSINGS["error-without-code"],
}

#: The scripts that the demo page offers for questions that name none.
CHOICES = ("normal", "steps", "slow", "late", "long", "formatted", "pictures", "form", "card", "error", "silent")

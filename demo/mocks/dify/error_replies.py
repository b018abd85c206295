"""All error replies of Dify or a proxy before it, by name: HTTP status and body."""

from __future__ import annotations

import json
from dataclasses import dataclass

_HTML = "<html><head><title>{title}</title></head><body><center><h1>{title}</h1></center><hr>nginx</body></html>"


@dataclass(frozen=True, slots=True)
class MockErrorReply:
    """An error reply of the mock."""

    status: int
    body: bytes
    content_type: str = "application/json"

    @classmethod
    def api(cls, status: int, code: str, message: str) -> MockErrorReply:
        """Return an error reply in Dify's envelope."""
        envelope = {"code": code, "message": message, "status": status}
        return cls(status, json.dumps(envelope).encode())

    @classmethod
    def html(cls, status: int, title: str) -> MockErrorReply:
        """Return an error reply as a proxy in front of Dify sends it."""
        return cls(status, _HTML.format(title=f"{status} {title}").encode(), "text/html")


INVALID_USER = MockErrorReply.api(400, "invalid_param", "Arg user must be provided.")
NO_CONVERSATION = MockErrorReply.api(404, "not_found", "Conversation Not Exists.")
NO_MESSAGE = MockErrorReply.api(404, "not_found", "Message Not Exists.")
NO_SUGGESTIONS = MockErrorReply.api(400, "bad_request", "Suggested Questions Is Disabled.")
NO_ADDRESS = MockErrorReply.html(404, "Not Found")
NO_RUN = MockErrorReply.api(404, "not_found", "Workflow run not found")
NOT_A_WORKFLOW = MockErrorReply.api(
    400, "not_workflow_app", "Please check if your app mode matches the right API route."
)
#: Error replies to a request in blocking mode, by the app's mode.
NO_BLOCKING = {
    "agent-chat": MockErrorReply.api(400, "invalid_param", "Agent Chat App does not support blocking mode"),
    "agent": MockErrorReply.api(400, "bad_request", "Agent App only supports streaming response mode."),
}
UNAUTHORIZED = MockErrorReply.api(401, "unauthorized", "Authorization header must be provided and start with 'Bearer'")

_SUFFIX = " You have requested this URI [/v1/chat-messages] but did you mean /v1/chat-messages ?"

_API_ROWS = (
    (400, "invalid_param", "validation error\n  conversation_id must be a valid UUID"),
    (400, "bad_request", "The browser (or proxy) sent a request that this server could not understand."),
    (400, "not_chat_app", "Please check if your app mode matches the right API route."),
    (400, "app_unavailable", "App unavailable, please check your app configurations."),
    (400, "agent_not_published", "The agent has no published version."),
    (400, "provider_not_initialize", "No valid model provider credentials found."),
    (400, "provider_quota_exceeded", "Your quota for Dify Hosted Model Provider has been exhausted."),
    (400, "model_currently_not_support", "Dify Hosted OpenAI trial currently not support the GPT-4 model."),
    (400, "completion_request_error", "Completion request failed."),
    (400, "conversation_completed", "The conversation has ended. Please start a new conversation."),
    (400, "no_file_uploaded", "Please upload your file."),
    (400, "too_many_files", "Only one file is allowed."),
    (400, "filename_not_exists_error", "The specified filename does not exist."),
    (401, "unauthorized", "Access token is invalid"),
    (403, "forbidden", "The app's API service has been disabled."),
    (403, "app_not_found", "The app no longer exists."),
    (403, "app_abnormal_status", "The app's status is abnormal."),
    (403, "app_api_disabled", "The app's API service has been disabled."),
    (403, "workspace_archived", "The workspace's status is archived."),
    (403, "workflow_version_execution_not_allowed", "Workflow version execution is not allowed."),
    (404, "not_found", "Message Not Exists."),
    (413, "file_too_large", ""),
    (413, "audio_too_large", "Audio size larger than 30 mb"),
    (415, "unsupported_file_type", "File type not allowed."),
    (415, "unsupported_audio_type", "Audio type not allowed."),
    (429, "too_many_requests", "Too many requests. Please try again later."),
    (429, "rate_limit_error", "Sorry, you have reached the rate limit of your plan."),
    (500, "internal_server_error", "Internal Server Error, please contact support."),
)

ERROR_REPLIES: dict[str, MockErrorReply] = {
    **{f"{status}-{code}": MockErrorReply.api(status, code, message) for status, code, message in _API_ROWS},
    "404-conversation": NO_CONVERSATION,
    "404-conversation-suffix": MockErrorReply.api(404, "not_found", "Conversation Not Exists." + _SUFFIX),
    "404-wrong-path": MockErrorReply.html(404, "Not Found"),
    "413-html": MockErrorReply.html(413, "Request Entity Too Large"),
    "429-html": MockErrorReply.html(429, "error code: 1015"),
    "500-unknown": MockErrorReply(500, b'{"code":"unknown","message":"boom"}'),
    "502-html": MockErrorReply.html(502, "Bad Gateway"),
    "503-html": MockErrorReply.html(503, "Service Temporarily Unavailable"),
    "504-html": MockErrorReply.html(504, "Gateway Time-out"),
    "524-html": MockErrorReply.html(524, "A timeout occurred"),
}

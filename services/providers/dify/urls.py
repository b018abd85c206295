"""Builds the URLs of a Dify app's API from the settings DIFY_BASE_URL and DIFY_CHAT_ENDPOINT."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from config.errors import SettingsError
from services.errors import ProviderError
from utils.tracing import onward_headers


@dataclass(frozen=True, slots=True)
class DifyUrls:
    """The URLs of one app. `root` ends in the API's version, without a slash."""

    chat: str
    root: str

    @classmethod
    def build(cls, base_url: str, chat_endpoint: str = "/v1/chat-messages") -> DifyUrls:
        """Join the two settings. Either may contain `/v1`; another path before chat-messages is kept.

        Raises:
            SettingsError: the base is not an http(s) URL.
        """
        base = base_url.strip().rstrip("/").removesuffix("/chat-messages")
        if not base.startswith(("http://", "https://")) or len(base.split("/")) < 3 or not base.split("/")[2]:
            raise SettingsError("DIFY_BASE_URL: expected an address such as https://api.dify.ai/v1")
        path, _, leaf = chat_endpoint.strip().strip("/").rpartition("/")
        path = path or "v1"
        root = f"{base.removesuffix('/v1') if path.endswith('v1') else base}/{path}"
        return cls(chat=f"{root}/{leaf or 'chat-messages'}", root=root)

    def stop(self, task_id: str) -> str:
        return f"{self.root}/chat-messages/{quote(task_id, safe='')}/stop"

    @property
    def messages(self) -> str:
        return f"{self.root}/messages"

    def feedbacks(self, message_id: str) -> str:
        return f"{self.root}/messages/{quote(message_id, safe='')}/feedbacks"

    @property
    def uploads(self) -> str:
        return f"{self.root}/files/upload"

    @property
    def conversations(self) -> str:
        return f"{self.root}/conversations"

    def suggested(self, message_id: str) -> str:
        return f"{self.messages}/{quote(message_id, safe='')}/suggested"

    def run(self, run_id: str) -> str:
        return f"{self.root}/workflows/run/{quote(run_id, safe='')}"

    def events(self, run_id: str) -> str:
        # Dify's API has "workflow" in this URL and "workflows" in the one of `run`.
        return f"{self.root}/workflow/{quote(run_id, safe='')}/events"

    def form(self, token: str) -> str:
        return f"{self.root}/form/human_input/{quote(token, safe='')}"


def app_headers(authorization: str) -> dict[str, str]:
    """Return the headers of each request.

    Raises:
        ProviderError: the credential cannot be sent in a header.
    """
    if not (authorization.isascii() and authorization.isprintable()):
        raise ProviderError("the credential cannot be sent in a header", code="provider_unauthorized")
    # A proxy that compresses holds pieces back until a compression block is full.
    return {"Authorization": authorization, "Accept-Encoding": "identity", **onward_headers()}

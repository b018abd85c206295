"""The addresses of one Dify app's API, from the two settings that tell where it is."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from services.errors import SettingsError


@dataclass(frozen=True, slots=True)
class DifyUrls:
    """Where an app answers. `root` ends in the API's version, without a slash."""

    chat: str
    root: str

    @classmethod
    def build(cls, base_url: str, chat_endpoint: str = "/v1/chat-messages") -> DifyUrls:
        """Join the two settings whichever of them has the `/v1`; a path of its own before chat-messages is kept.

        Raises:
            SettingsError: the base is not an http(s) address.
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

    @property
    def conversations(self) -> str:
        return f"{self.root}/conversations"

    def run(self, run_id: str) -> str:
        return f"{self.root}/workflows/run/{quote(run_id, safe='')}"

    def events(self, run_id: str) -> str:
        # "workflow" here and "workflows" there: so Dify has it.
        return f"{self.root}/workflow/{quote(run_id, safe='')}/events"

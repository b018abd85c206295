"""WeCom's message crypt under the names that existing integrations import; it lives in `services.wecom.crypto`."""

from services.wecom.crypto import *  # noqa: F403

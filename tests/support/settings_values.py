"""Settings for tests: the least that starts, and what stops the start."""

from __future__ import annotations

import pytest

from config.settings import Settings, load_settings
from services.errors import SettingsError

AES_KEY = "NotARealEncodingAESKeyxxxxxxxxxxxxxxxxxxxxx"
OTHER_AES_KEY = "AnotherFakeEncodingAESKeyyyyyyyyyyyyyyyyyyy"

#: Nothing can be left out of this.
LEAST = {
    "WECHAT_TOKEN": "fake-wechat-token",
    "WECHAT_ENCODING_AES_KEY": AES_KEY,
    "REDIS_HOST": "redis.example",
    "AUTH_MODE": "none",
    "DIFY_API_KEY": "app-not-a-real-key",
}


def settings(**variables: str) -> Settings:
    """Load the least settings with some variables more, or other, or empty."""
    return load_settings({**LEAST, **variables}, env_file=None)


def refusal(**variables: str) -> str:
    """Return the line with which the start stops."""
    with pytest.raises(SettingsError) as caught:
        settings(**variables)
    line = str(caught.value)
    assert "\n" not in line
    return line

"""Settings for tests: the smallest set that loads, and the error line of settings that do not load."""

from __future__ import annotations

import pytest

from config.errors import SettingsError
from config.settings import Settings, load_settings

AES_KEY = "NotARealEncodingAESKeyxxxxxxxxxxxxxxxxxxxxx"
OTHER_AES_KEY = "AnotherFakeEncodingAESKeyyyyyyyyyyyyyyyyyyy"

#: The required settings: without any one of them the start fails.
LEAST = {
    "WECHAT_TOKEN": "fake-wechat-token",
    "WECHAT_ENCODING_AES_KEY": AES_KEY,
    "REDIS_HOST": "redis.example",
    "AUTH_MODE": "none",
    "DIFY_API_KEY": "app-not-a-real-key",
}


def settings(**variables: str) -> Settings:
    """Load `LEAST` with these variables added, replaced or emptied."""
    return load_settings({**LEAST, **variables}, env_file=None)


def refusal(**variables: str) -> str:
    """Return the error line with which the settings fail to load."""
    with pytest.raises(SettingsError) as caught:
        settings(**variables)
    line = str(caught.value)
    assert "\n" not in line
    return line

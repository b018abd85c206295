"""Settings: their defaults, the errors that stop the start, the accepted forms, and that secrets are not shown."""

from __future__ import annotations

import json
import re
import traceback
from pathlib import Path

import pytest
from pydantic import Secret, SecretStr, ValidationError
from pydantic_core import PydanticUndefined

from config.checks import RAG_PROVIDERS
from config.errors import SettingsError
from config.settings import Settings, load_settings
from tests.support.settings_values import AES_KEY, LEAST, OTHER_AES_KEY, refusal, settings

DEMO_ENV = Path(__file__).parents[3] / "demo.env"

EXTERNAL = {
    "AUTH_MODE": "external",
    "AUTH_SERVICE_URL": "https://auth.example/login",
    "MYSQL_HOST": "mysql.example",
    "MYSQL_DATABASE": "people",
    "AUTH_USER_QUERY": "SELECT code AS user_code, password FROM users WHERE wecom_id = :userid",
}


def test_the_least_settings_start_with_the_documented_defaults() -> None:
    """Settings that are not set have their documented default; nothing warns."""
    found = settings()

    assert (found.host, found.port, found.locale) == ("0.0.0.0", 5000, "zh")
    assert (found.bots["default"].answer_seconds, found.wechat_timestamp_window) == (330, 600)
    assert (found.stream_ttl, found.stream_lease, found.stream_max_seconds) == (1800, 6, 1200)
    assert (found.stream_max_per_replica, found.stream_max_per_user, found.drain_seconds) == (1000, 3, 60)
    assert (found.dify_timeout, found.dify_auth_prefix, found.rag_provider) == (60, "Bearer", "dify")
    assert (found.auth_token_ttl, found.auth_service_method) == (604800, "post")
    assert (found.debug, found.log_content, found.mock_fallback) == (False, False, False)
    assert found.warnings == ()


def test_the_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without arguments, the environment and `.env` of the working directory are read."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("PORT=5001\nLOG_LEVEL=debug\n")
    for name, value in {**LEAST, "PORT": "5002"}.items():
        monkeypatch.setenv(name, value)

    found = load_settings()

    assert (found.port, found.log_level) == (5002, "DEBUG")


def test_settings_cannot_be_changed() -> None:
    """Settings are frozen: they are read once, at the start."""
    found = settings()

    with pytest.raises(ValidationError, match="frozen"):
        found.port = 1  # type: ignore[misc]


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_has_its_meaning_in_both_languages(name: str) -> None:
    """The pages and `demo.env` show them."""
    field = Settings.model_fields[name]

    assert field.description
    assert re.search("[\u4e00-\u9fff]|、", str(field.json_schema_extra))


class TestDemoEnv:
    def test_it_shows_the_defaults(self) -> None:
        """Values in demo.env are the defaults, except REDIS_HOST, AUTH_MODE and LOG_DIR."""
        chosen = {"REDIS_HOST": "127.0.0.1", "AUTH_MODE": "allowlist", "LOG_DIR": "logs"}

        shown = {name: value for name, value in _demo_values().items() if value != _default_text(name)}

        assert shown == chosen

    def test_it_starts_with_the_marked_lines_filled_in(self, tmp_path: Path) -> None:
        """Only the four lines marked FILL IN have to be changed in a copy."""
        filled = {
            "WECHAT_TOKEN": "t",
            "WECHAT_ENCODING_AES_KEY": AES_KEY,
            "DIFY_API_KEY": "app-x",
            "AUTH_ALLOWLIST": "li",
        }
        text = DEMO_ENV.read_text(encoding="utf-8")
        assert text.count("# FILL IN") == len(filled)
        for name, value in filled.items():
            text = text.replace(f"\n{name}=\n", f"\n{name}={value}\n")
        (tmp_path / ".env").write_text(text, encoding="utf-8")

        found = load_settings({}, str(tmp_path / ".env"))

        assert found.auth_allowlist == ("li",)
        assert found.log_dir == "logs"
        assert found.warnings == ()

    def test_it_stops_the_start_unchanged(self) -> None:
        """demo.env contains no token or key that would be accepted."""
        with pytest.raises(SettingsError, match="is missing"):
            load_settings({}, str(DEMO_ENV))


class TestRefusals:
    """A wrong or missing value stops the start with one line: the variable, the value and what is expected."""

    @pytest.mark.parametrize(
        ("name", "value", "expected"),
        [
            ("PORT", "abc", "a whole number"),
            ("PORT", "70000", "at most 65535"),
            ("WORKERS", "0", "at least 1"),
            ("DEBUG", "perhaps", "true or false"),
            ("LOCALE", "fr", "'zh' or 'en'"),
            ("LOG_LEVEL", "LOUD", "'DEBUG', 'INFO'"),
            ("WECHAT_ANSWER_SECONDS", "360", "less than 360"),
            ("WECHAT_ANSWER_SECONDS", "600", "less than 600"),
            ("WECHAT_WS_URL", "https://wecom.example", "an address like wss://"),
            ("WECHAT_WS_URL", "wss://", "an address like"),
            ("WECHAT_WS_RETRY", "-1", "at least 0"),
            ("WECHAT_WS_FRAME_SECONDS", "0", "more than 0"),
            ("DRAIN_SECONDS", "-1", "at least 0"),
            ("DIFY_TIMEOUT", "0", "more than 0"),
            ("STREAM_LEASE", "1.9", "at least 2"),
            ("STREAM_MAX_BYTES", "20479", "at least 20480"),
            ("STREAM_LEASE", "soon", "a number"),
            ("STREAM_LEASE", "inf", "a finite number"),
            ("DIFY_BASE_URL", "dify.example", "an address like https://"),
            ("AUTH_SERVICE_URL", "ftp://auth.example", "an address like https://"),
            ("PUBLIC_ORIGINS", "https://chat.example/page", "without a path"),
            ("PUBLIC_URL", "https://chat.example/laibao", "without a path"),
            ("AUTH_ALLOWLIST", "“zhangsan”", "without quotes, separated by commas, got “"),
            ("AUTH_ALLOWLIST", '"zhangsan"', "without quotes"),
            ("ALLOWED_HOSTS", "https://chat.example", "without scheme and port"),
            ("ALLOWED_HOSTS", "chat.example:443", "without scheme and port"),
            ("DIFY_CHAT_ENDPOINT", "chat-messages", "begins with /"),
            ("DIFY_INPUTS", '["a"]', "a JSON object"),
            ("DIFY_INPUTS", '{"who": "{usercode}"}', "got {usercode}"),
            ("CUSTOM_RAG_INPUTS", '{"who": "{chat_id}"}', "got {chat_id}"),
            ("WECOM_API_URL", "qyapi.example", "an address like https://"),
            ("WECHAT_COMMANDS", "{", "a JSON object"),
            ("AUTH_ALLOWLIST", '["a"', "a list: comma-separated or JSON"),
            ("AUTH_USER_QUERY", "SELECT 1", "SQL with :userid"),
            ("AUTH_USER_QUERY", "DELETE FROM users WHERE userid = :userid", "a SELECT"),
            ("AUTH_USER_QUERY", "/* SELECT */ DROP TABLE :userid", "a SELECT"),
            ("AUTH_USER_QUERY", "selection :userid", "a SELECT"),
            ("HOST", "999.1.1.1", "a host name or an IP address alone"),
            ("HOST", "http://here", "a host name or an IP address alone"),
            ("REDIS_HOST", "redis.example:6379", "a host name or an IP address alone"),
            ("MYSQL_HOST", "mysql.example:3306", "a host name or an IP address alone"),
            ("MYSQL_READ_HOST", "1::2::3", "a host name or an IP address alone"),
            ("RAG_PROVIDER", "chatgpt", f"{', '.join(RAG_PROVIDERS)}, the name of an installed provider"),
            ("RAG_PROVIDER", "no_such_package.module:Class", "a module that can be imported"),
            ("SEARCH_PROVIDER", "google", "serper, the name of an installed provider"),
            ("RATE_LIMIT_USER", "20", "a rate like 20/minute"),
            ("MOCK_MODE", "ture", "true or false"),
            ("QUESTION_LOG", "all", "'off', 'meta' or 'full'"),
            ("QUESTION_LOG_HOUR", "24", "at most 23"),
            ("REPORT_TZ", "Asia/Shangai", "a time zone that this machine knows"),
            ("REPORT_TZ", "../etc/passwd", "a time zone that this machine knows"),
        ],
    )
    def test_a_wrong_value_is_named(self, name: str, value: str, expected: str) -> None:
        """The line has the variable, the value and what is expected."""
        line = refusal(**{name: value})

        assert line.startswith(f"{name}={value!r} is wrong: expected ")
        assert expected in line

    @pytest.mark.parametrize(
        ("name", "value", "expected"),
        [
            ("WECHAT_ENCODING_AES_KEY", "too-short", "43 letters and digits"),
            ("WECHAT_ENCODING_AES_KEY", "!" * 43, "43 letters and digits"),
            ("WECHAT_ENCODING_AES_KEY", "钥" * 43, "43 letters and digits"),
            ("REDIS_URL", "http://:fake-password@redis.example", "redis+cluster://"),
            ("REDIS_URL", "redis://", "an address that begins"),
            ("API_KEYS", '{"fake": "key"}]', ""),
            ("ADMIN_TOKEN", "fake-67", "at least 8 characters, got 7"),
            ("DIFY_API_KEY", "Bearer app-fake", "without Bearer"),
            ("DIFY_API_KEY", "app-good, bearer app-fake", "without Bearer"),
            ("OPENAI_API_KEY", "Bearer sk-fake", "without Bearer"),
            ("CUSTOM_RAG_API_KEY", "Bearer fake", "without Bearer"),
            ("CUSTOM_RAG_API_KEY", "fake密", "printable ASCII"),
            ("OPENAI_API_KEY", "sk-fake密", "printable ASCII"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "Authorization", "NAME=VALUE, several joined by commas"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "A=b%0d%0aX-Evil: fake", "headers that can be sent, not 'A'"),
            ("CUSTOM_RAG_HEADERS", '{"X-Tenant": "fake密"}', "headers that can be sent, not 'X-Tenant'"),
            ("CUSTOM_RAG_HEADERS", '{"X Tenant": "fake"}', "headers that can be sent, not 'X Tenant'"),
            ("CUSTOM_RAG_HEADERS", '{"X": "a\\r\\nX-Evil: fake"}', "headers that can be sent, not 'X'"),
            ("CUSTOM_RAG_HEADERS", '{"content-length": "1"}', "headers other than 'content-length'"),
            ("WECHAT_BOTS", '{"hr": "fake-token"}', "a valid dictionary"),
            ("WECHAT_BOTS", '{"hr": {"corp": "fake"}, "hr": {}}', "each name once, got 'hr' twice"),
            ("WECHAT_TOKEN", "fake-token，fake-other", "a Chinese keyboard, got ，"),
            ("ADMIN_TOKEN", "“fake-token-12”", "a Chinese keyboard, got “"),
            ("SECRET_KEY", "‘fake-secret-of-17-’", "a Chinese keyboard, got ‘"),
            ("WECHAT_BOT_SECRET", "fake”", "a Chinese keyboard, got ”"),
            ("AUTH_SERVICE_URL", "https://me:fake-password@auth.example", "without a user and password"),
            ("CUSTOM_RAG_HEADERS", '{"Authorization": ["fake-token"]}', "a valid string"),
            ("SECRET_KEY", "not-a-real-secret-1,fake-short", "at least 16 random characters in each"),
        ],
    )
    def test_a_wrong_secret_is_named_but_not_shown(self, name: str, value: str, expected: str) -> None:
        """The line shows *** for the value of a secret."""
        if name == "API_KEYS":
            value = f"[{value}"

        line = refusal(**{name: value})

        assert re.match(rf"{name}='(https://)?\*\*\*(@auth.example)?' is wrong: expected ", line)
        assert expected in line
        assert "fake" not in line

    def test_a_chinese_comma_separates_names(self) -> None:
        """Userids, hosts and origins cannot contain it."""
        found = settings(AUTH_ALLOWLIST="zhangsan，lisi, wangwu", ALLOWED_HOSTS="a.example，b.example")

        assert found.auth_allowlist == ("zhangsan", "lisi", "wangwu")
        assert found.allowed_hosts == ("a.example", "b.example")

    def test_the_errors_traceback_shows_no_secret(self) -> None:
        """The SettingsError has no context: pydantic's error, which holds the values, is not chained to it."""
        secret = "-".join(["fake", "secret", "key"])  # joined, because a traceback quotes this source line

        with pytest.raises(SettingsError) as caught:
            settings(WECHAT_ENCODING_AES_KEY=secret)

        assert secret not in "".join(traceback.format_exception(caught.value, chain=True))
        assert caught.value.__context__ is None

    def test_a_long_value_is_cut(self) -> None:
        """A value of 800 characters gives an error line of less than 300, with an ellipsis."""
        line = refusal(DIFY_INPUTS="no json\n" * 100)

        assert len(line) < 300
        assert "…" in line

    def test_several_wrong_values_are_named(self) -> None:
        """The first gets the whole line, the names of the others follow in parentheses."""
        assert refusal(PORT="x", STREAM_LEASE="y", LOCALE="z").endswith("(also: LOCALE, STREAM_LEASE)")

    @pytest.mark.parametrize(
        ("variables", "name", "expected"),
        [
            ({"REDIS_HOST": ""}, "REDIS_URL", "`make demo`"),
            ({"WECHAT_TOKEN": ""}, "WECHAT_TOKEN", "mode is callback"),
            ({"WECHAT_TOKEN": '["fake", ""]'}, "WECHAT_TOKEN", "mode is callback"),
            ({"WECHAT_ENCODING_AES_KEY": ""}, "WECHAT_ENCODING_AES_KEY", "mode is callback"),
            ({"WECHAT_MODE": "websocket"}, "WECHAT_BOT_ID", "mode is websocket"),
            ({"WECHAT_MODE": "websocket", "WECHAT_BOT_ID": "b"}, "WECHAT_BOT_SECRET", "mode is websocket"),
            ({"AUTH_MODE": ""}, "AUTH_MODE", "AUTH_SERVICE_URL"),
            ({"AUTH_MODE": "allowlist"}, "AUTH_ALLOWLIST", "userids"),
            ({**EXTERNAL, "AUTH_SERVICE_URL": ""}, "AUTH_SERVICE_URL", "external"),
            ({**EXTERNAL, "MYSQL_HOST": ""}, "MYSQL_HOST", "DATABASE_PATH"),
            ({**EXTERNAL, "MYSQL_DATABASE": ""}, "MYSQL_DATABASE", "mysql.example"),
            ({**EXTERNAL, "AUTH_USER_QUERY": ""}, "AUTH_USER_QUERY", ":userid"),
            ({"DIFY_API_KEY": ""}, "DIFY_API_KEY", "USE_MOCK_RAG"),
            ({"RAG_PROVIDER": "openai"}, "OPENAI_API_KEY", "RAG_PROVIDER is openai"),
            ({"RAG_PROVIDER": "context"}, "CONTEXT_API_KEY", "RAG_PROVIDER is context"),
            ({"RAG_PROVIDER": "custom"}, "CUSTOM_RAG_API_URL", "RAG_PROVIDER is custom"),
            ({"SEARCH_PROVIDER": "serper"}, "SERPER_API_KEY", "SEARCH_PROVIDER is serper"),
            ({"WECOM_CORP_ID": "ww1"}, "WECOM_CONTACT_SECRET", ""),
            ({"WECOM_CONTACT_SECRET": "s"}, "WECOM_CORP_ID", ""),
        ],
    )
    def test_a_missing_value_is_named(self, variables: dict[str, str], name: str, expected: str) -> None:
        """The line names the variable to set and the reason."""
        line = refusal(**variables)

        assert line.startswith(f"{name} is missing: expected ")
        assert expected in line

    @pytest.mark.parametrize(
        ("variables", "name", "expected"),
        [
            ({**EXTERNAL, "DATABASE_PATH": "users.db"}, "DATABASE_PATH", "MYSQL_HOST is set"),
            ({"REDIS_URL": "redis+cluster://a:7000", "REDIS_DB": "1"}, "REDIS_DB", "Cluster"),
            (
                {"DIFY_BASE_URL": "https://a.example", "DIFY_API_URL": "https://b.example"},
                "DIFY_API_URL",
                "DIFY_BASE_URL",
            ),
            ({"DIFY_AUTH_MODE": "user_token"}, "DIFY_AUTH_MODE", "AUTH_MODE=none"),
            ({"STREAM_MAX_SECONDS": "1741"}, "STREAM_TTL", "STREAM_MAX_SECONDS + 60, which is 1801"),
            ({"STREAM_TTL": "300", "STREAM_MAX_SECONDS": "240"}, "WECHAT_ANSWER_SECONDS", "STREAM_TTL, which is 300"),
            ({"STREAM_LEASE": "1300"}, "STREAM_LEASE", "STREAM_MAX_SECONDS"),
            ({"WEBSOCKET_HEARTBEAT_TIMEOUT": "20"}, "WEBSOCKET_HEARTBEAT_INTERVAL", "which is 20"),
            ({"OPS_PORT": "5000"}, "OPS_PORT", "another port"),
            ({"UPLOADS_MAX_PER_CALLER": "3"}, "UPLOADS_MAX_PER_CALLER", "at most UPLOADS_MAX, which is 2"),
            ({"BATCH_MAX_BYTES": "67108864"}, "BODIES_MAX_BYTES_PER_CALLER", "at least 68157440"),
            ({"MEDIA_MAX_BYTES": "52428800"}, "BODIES_MAX_BYTES_PER_CALLER", "at least 70953642"),
            ({"BODIES_MAX_BYTES": "50000000"}, "BODIES_MAX_BYTES", "which is 67108864"),
            ({"WEBSOCKET_AUTH": "token"}, "WEBSOCKET_AUTH", "AUTH_MODE=none"),
            ({"WS_PATH": "/ws/chat"}, "WS_PATH", "nothing else has"),
            ({"WS_PATH": "/wechat/callback"}, "WS_PATH", "nothing else has"),
            ({"WS_PATH": "/chat"}, "WS_PATH", "nothing else has"),
        ],
    )
    def test_a_contradiction_is_named(self, variables: dict[str, str], name: str, expected: str) -> None:
        """Two values that exclude each other stop the start; the line names one variable and the reason."""
        line = refusal(**variables)

        assert line.startswith(f"{name}=")
        assert expected in line

    @pytest.mark.parametrize("variables", [{"API_KEYS": "not-a-real-key"}, {"WEBSOCKET_AUTH": "none"}])
    def test_a_bot_is_optional_with_socket_authentication(self, variables: dict[str, str]) -> None:
        """API_KEYS or WEBSOCKET_AUTH=none makes a WeCom bot optional; a bot with only half of its keys is an error."""
        nothing = {"WECHAT_TOKEN": "", "WECHAT_ENCODING_AES_KEY": ""}

        assert not settings(**nothing, **variables).bots
        assert refusal(WECHAT_TOKEN="", **variables).startswith("WECHAT_TOKEN is missing")
        assert refusal(**nothing, WEBSOCKET_AUTH="key").startswith("WECHAT_TOKEN is missing")


class TestForms:
    def test_lists_are_comma_separated_or_json(self) -> None:
        """Several tokens or keys may be given in either form, their order is kept."""
        found = settings(
            WECHAT_TOKEN="new, old",
            WECHAT_ENCODING_AES_KEY=json.dumps([AES_KEY, OTHER_AES_KEY]),
            API_KEYS='["a,b", "c"]',
            PUBLIC_ORIGINS="https://a.example/,http://b.example:8080",
        )

        assert found.bots["default"].tokens == ("new", "old")
        assert found.bots["default"].aes_keys == (AES_KEY, OTHER_AES_KEY)
        assert [key.get_secret_value() for key in found.api_keys] == ["a,b", "c"]
        assert found.public_origins == ("https://a.example", "http://b.example:8080")

    @pytest.mark.parametrize(("more", "warned"), [({}, True), ({"SECRET_KEY": "not-a-real-secret-1"}, False)])
    def test_tokens_sealed_with_a_key_of_one_process_warn(self, more: dict[str, str], warned: bool) -> None:
        """Without a bot and SECRET_KEY there is no configured key to seal users' tokens with."""
        found = settings(**EXTERNAL, WECHAT_TOKEN="", WECHAT_ENCODING_AES_KEY="", WEBSOCKET_AUTH="token", **more)

        assert any(line.startswith("SECRET_KEY is empty") for line in found.warnings) == warned

    def test_external_authentication_has_an_api_and_users(self) -> None:
        """With AUTH_SERVICE_URL set and AUTH_MODE empty, the mode is external; the users may be in an SQLite file.

        With DIFY_AUTH_MODE=user_token the user's token is sent instead of an app key.
        """
        assert settings(**{**EXTERNAL, "AUTH_MODE": ""}).auth_mode == "external"
        found = settings(**{**EXTERNAL, "MYSQL_HOST": "", "DATABASE_PATH": "users.db"})
        assert found.sql_url == SecretStr("sqlite:///users.db")
        assert settings(**EXTERNAL, DIFY_AUTH_MODE="user_token", DIFY_API_KEY="").provider.dify_api_keys == ()

    @pytest.mark.parametrize(
        "query",
        [
            "select 1 where :userid",
            "/* who asks */ -- by id\n  (SELECT user_code FROM users WHERE id = :userid)",
            "WITH known AS (SELECT * FROM users) SELECT * FROM known WHERE id = :userid",
        ],
    )
    def test_a_query_may_begin_with_comments_and_subqueries(self, query: str) -> None:
        """Comments, parentheses and WITH before the SELECT are accepted."""
        assert settings(AUTH_USER_QUERY=query).auth_user_query == query

    @pytest.mark.parametrize("switch", ["MOCK_MODE", "USE_MOCK_RAG"])
    @pytest.mark.parametrize("on", ["1", "true", "True", "yes"])
    def test_a_mock_switch_needs_no_key(self, switch: str, on: str) -> None:
        """Either switch overrides RAG_PROVIDER."""
        found = settings(**{switch: on}, RAG_PROVIDER="openai", DIFY_API_KEY="")

        assert found.rag_provider == found.provider.rag_provider == "mock"

    @pytest.mark.parametrize(
        ("name", "given", "found"),
        [
            *(("REDIS_HOST", given, given.strip("[]")) for given in ("::1", "[::1]", "redis_1", "127.1")),
            *(("RATE_LIMIT_USER", rate, rate) for rate in ("20/minute", "20 per minute", "5/second; 100/15 minutes")),
            ("RATE_LIMIT_IP", "off", ""),
            ("LOG_FORMAT", "Plain", "plain"),
            ("LOG_LEVEL", "warning", "WARNING"),
            ("LOCALE", "EN", "en"),
            # An alias of DIFY_BASE_URL.
            ("DIFY_API_URL", "https://a.example/v1", "https://a.example/v1"),
            ("DIFY_BASE_URL", "https://a.example/dify/", "https://a.example/dify"),
        ],
    )
    def test_a_value_is_kept_in_one_form(self, name: str, given: str, found: str) -> None:
        """IPv6 with and without brackets, words in any case, an address without the last /, `off` for no rate."""
        assert getattr(settings(**{name: given}), name.lower().replace("dify_api_url", "dify_base_url")) == found

    def test_dify_has_two_names_for_its_address(self) -> None:
        """DIFY_API_URL may be set to the same address as well."""
        same = {"DIFY_API_URL": "https://a.example/v1/", "DIFY_BASE_URL": "https://a.example"}

        assert settings(**same).dify_base_url == "https://a.example"

    def test_a_setting_without_effect_warns(self) -> None:
        """A value that another setting makes ineffective does not stop the start."""
        app = '{"hr-app": {"RAG_PROVIDER": "mock"}}'
        idle = {"AUTH_SERVICE_URL": "https://auth.example", "APPS": app, "OTEL_EXPORTER_OTLP_HEADERS": "A=b"}
        found = settings(REDIS_URL="redis://a.example", **idle)

        assert found.warnings == (
            "REDIS_HOST has no effect, because REDIS_URL is set",
            "AUTH_SERVICE_URL has no effect, because AUTH_MODE is none",
            "OTEL_EXPORTER_OTLP_HEADERS has no effect, because OTEL_EXPORTER_OTLP_ENDPOINT is empty",
            "APPS has no effect, because ACCESS_FILE is empty and there is no database: rules of access choose an app",
        )

    def test_a_stream_ttl_below_the_replay_window_warns(self) -> None:
        """A callback replayed after its stream expired would be asked again. Each bot has a window of its own."""
        bots = json.dumps(
            {"hr": {"WECHAT_TOKEN": "t", "WECHAT_ENCODING_AES_KEY": AES_KEY, "WECHAT_TIMESTAMP_WINDOW": 1801}}
        )

        assert settings(WECHAT_TIMESTAMP_WINDOW="1800").warnings == ()
        for changes, bot in (({"WECHAT_TIMESTAMP_WINDOW": "1801"}, "default"), ({"WECHAT_BOTS": bots}, "hr")):
            (warning,) = settings(**changes).warnings
            assert warning.startswith(f"STREAM_TTL is 1800 and WECHAT_TIMESTAMP_WINDOW of bot {bot} is 1801: ")


class TestSecrets:
    HELD = {  # noqa: RUF012 - read only
        "WECHAT_TOKEN": "fake-held-token",
        "WECHAT_BOT_SECRET": "fake-held-bot-secret",
        "WECHAT_BOTS": json.dumps(
            {
                "hr": {
                    "WECHAT_TOKEN": "fake-held-hr",
                    "WECHAT_ENCODING_AES_KEY": OTHER_AES_KEY,
                    "DIFY_API_KEY": "fake-held-app",
                }
            }
        ),
        "REDIS_URL": "redis://:fake-held%2Furl@redis.example",
        "REDIS_PASSWORD": "fake-held-redis",
        "MYSQL_HOST": "mysql.example",
        "MYSQL_DATABASE": "people",
        "MYSQL_PASSWORD": "fake-held-mysql",
        "ADMIN_TOKEN": "fake-held-admin",
        "SECRET_KEY": "fake-held-secret-one,fake-held-secret-two",
        "API_KEYS": "fake-held-api-1,fake-held-api-2",
        "CUSTOM_RAG_HEADERS": '{"Authorization": "fake-held-header"}',
    }

    def test_no_repr_shows_a_secret(self) -> None:
        """This holds for settings, bots, provider settings and URLs."""
        found = settings(**self.HELD)

        shown = repr((found, dict(found.bots), found.provider, found.redis_address, found.sql_url, found.sql_read_url))

        assert "fake-held" not in shown
        assert AES_KEY not in shown
        assert OTHER_AES_KEY not in shown
        assert LEAST["DIFY_API_KEY"] not in shown

    def test_no_validation_error_quotes_a_secret(self) -> None:
        """A `Settings` built without `load_settings` gives an error without its input."""
        with pytest.raises(ValidationError) as caught:
            Settings.model_validate({"wechat_encoding_aes_key": "fake-held-key"})

        assert "fake-held" not in str(caught.value)

    def test_the_key_without_its_name_is_a_secret(self) -> None:
        """What a client sends, and a log must not have, is the key alone."""
        assert "fake-held-report" in settings(API_KEYS="reports=fake-held-report,fake-held-api").secrets

    def test_secrets_lists_every_secret(self) -> None:
        """`secrets`, which logging masks, has every configured secret, also a URL's password, and no other value."""
        known = settings(**self.HELD).secrets

        parts = [
            "token",
            "bot-secret",
            "hr",
            "app",
            "redis",
            "mysql",
            "admin",
            "secret-one",
            "secret-two",
            "api-1",
            "api-2",
            "header",
        ]
        assert {f"fake-held-{part}" for part in parts} <= set(known)
        assert {"fake-held/url", AES_KEY, OTHER_AES_KEY, LEAST["DIFY_API_KEY"]} <= set(known)
        assert not {"", "redis.example", "people", ".myqcloud.com"} & set(known)


class TestTextsFile:
    def test_a_texts_file_overrides_sentences(self, tmp_path: Path) -> None:
        """A JSON object of key and sentence overrides sentences; a byte order mark is skipped."""
        path = tmp_path / "texts.json"
        path.write_text('{"thinking": "正在查阅制度..."}', encoding="utf-8-sig")

        assert settings(TEXTS_FILE=str(path)).texts_overrides == {"thinking": "正在查阅制度..."}
        assert settings().texts_overrides == {}

    @pytest.mark.parametrize("content", [None, "{", "[]", '{"thinkin": "x"}'])
    def test_a_bad_file_stops_the_start(self, tmp_path: Path, content: str | None) -> None:
        """The file is missing, is no JSON object, or has an unknown key: the error names TEXTS_FILE."""
        path = tmp_path / "texts.json"
        if content is not None:
            path.write_text(content)

        assert refusal(TEXTS_FILE=str(path)).startswith("TEXTS_FILE")


def _demo_values() -> dict[str, str]:
    lines = DEMO_ENV.read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def _default_text(name: str) -> str:
    default = Settings.model_fields[name.lower()].default
    match default:
        case bool():
            return str(default).lower()
        case tuple():
            return ",".join(default)
        case dict():
            return json.dumps(default, ensure_ascii=False) if default else ""
        case None | Secret():
            return ""
    return "" if default is PydanticUndefined else str(default)


def test_an_unknown_command_is_refused() -> None:
    """A word of WECHAT_COMMANDS must map to a command that exists, in any case."""
    assert refusal(WECHAT_COMMANDS='{"/x": "dance"}').startswith("WECHAT_COMMANDS='dance' is wrong: expected 'reset'")
    assert settings(WECHAT_COMMANDS='{"/x": "RESET"}').wechat_commands["/x"] == "reset"


def test_a_setting_that_is_not_implemented_yet_warns() -> None:
    """The warning says that the setting has no effect in this version."""
    (warning,) = settings(DEBUG="true").warnings

    assert warning == "DEBUG has no effect in this version"

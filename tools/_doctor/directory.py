"""Checks the access to WeCom's directory: company, Secret, the right to read people, and the conversion of ids."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

from config.bots import BotSettings
from services.errors import ProviderError
from services.ops.remedies import explained
from services.wecom.directory.api_service import BAD_PERSON, ContactsApi, ContactsRefused
from tools._doctor.checks import BOUND, TLS, Finding
from tools._doctor.users import NOBODY
from utils.deadline import Deadline

_APPLICATION = "use the Secret of a self-built application (应用管理, 自建) whose visible range has the bot's users"
_REMEDIES = {
    40001: f"correct WECOM_CONTACT_SECRET: {_APPLICATION}",
    40013: "correct WECOM_CORP_ID: 企业ID on the console's page 我的企业, it begins with ww",
    45009: "WeCom counts too many calls: wait a minute, and see who else uses this application's Secret",
    48002: _APPLICATION,
    48009: _APPLICATION,
    60011: "add the person to the application's visible range (可见范围)",
    60020: "add this machine's public address to the application's trusted addresses (企业可信IP)",
    60111: "use the userid of the console's page 通讯录 (账号)",
}
_FAILURES = (
    *TLS,
    ("not the API's reply", "correct WECOM_API_URL: it leads to something else than WeCom's API"),
    ("silent", "see that no firewall drops the packets to WECOM_API_URL"),
    ("total time", "see that no firewall drops the packets to WECOM_API_URL"),
)
_UNREACHABLE = "see that WECOM_API_URL resolves and is open from here: https://qyapi.weixin.qq.com, unless private"


def check_directory(name: str, bot: BotSettings, userid: str = "") -> Iterator[Finding]:
    """Yield the findings on the bot's directory. `userid` is a person to look up, "" for none."""
    check = f"directory {name}"
    secret = bot.wecom_contact_secret.get_secret_value() if bot.wecom_contact_secret else ""
    api = ContactsApi(bot.wecom_api_url, corp_id=bot.wecom_corp_id, secret=secret, pool_size=1)
    with closing(api):
        deadline = Deadline(BOUND - 1.0)
        try:
            token, _ = api.token(deadline)
            yield _reads(check, api, token, userid, deadline)
            yield _converts(f"{check} ids", api, token, deadline)
        except ProviderError as exc:
            yield _failed(check, bot.wecom_api_url, exc)


def _reads(check: str, api: ContactsApi, token: str, userid: str, deadline: Deadline) -> Finding:
    """Look the person up; without one look up nobody, which shows whether people may be read at all."""
    try:
        person = api.person(token, userid or NOBODY, deadline)
    except ContactsRefused as exc:
        if exc.errcode not in BAD_PERSON:
            raise
        if not userid:
            return Finding(check, "ok", "answers, and lets this machine read people")
        plain = api.plain_userid(token, userid, deadline)
        if not plain:
            return Finding(check, "failed", f"{userid}: {exc}", _REMEDIES.get(exc.errcode, ""))
        person = api.person(token, plain, deadline)
    names = [api.department(token, number, deadline) for number in person.departments]
    return Finding(check, "ok", f"knows {userid}: {'a name' if person.name else 'no name'}, {len(names)} departments")


def _converts(check: str, api: ContactsApi, token: str, deadline: Deadline) -> Finding:
    try:
        api.plain_userid(token, NOBODY, deadline)
    except ContactsRefused as exc:
        text = f"{exc}: people whose ids come encrypted have no name"
        return Finding(check, "warning", text, _REMEDIES.get(exc.errcode, _APPLICATION))
    return Finding(check, "ok", "encrypted userids are converted")


def _failed(check: str, url: str, exc: ProviderError) -> Finding:
    text = f"{url}: {exc}: questions are asked without name and department"
    if isinstance(exc, ContactsRefused):
        otherwise = "look the errcode up at https://developer.work.weixin.qq.com/devtool/query"
        return Finding(check, "failed", text, _REMEDIES.get(exc.errcode, otherwise))
    return Finding(check, "failed", text, explained(str(exc), _FAILURES, _UNREACHABLE))

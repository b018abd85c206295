"""The doctor's check of WeCom's directory: every fault here is one of the API's own replies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from config.settings import load_settings
from demo.mocks.contacts import CORP_ID, SECRET, Member, MockContacts, encrypted
from tests.support.replicas import settings_for
from tests.support.servers.processes import free_port
from tests.support.servers.raw_server import RawServer, self_signed
from tools._doctor.checks import Finding
from tools._doctor.directory import check_directory


@pytest.fixture
def wecom() -> Iterator[MockContacts]:
    with MockContacts() as mock:
        yield mock


def examine(wecom: MockContacts, userid: str = "", **changes: str) -> list[Finding]:
    given = {"WECOM_CORP_ID": CORP_ID, "WECOM_CONTACT_SECRET": SECRET, "WECOM_API_URL": wecom.url, **changes}
    bot = load_settings(settings_for("redis://127.0.0.1:1/1", **given), None).bots["default"]
    return list(check_directory("default", bot, userid))


def test_a_certificate_that_is_not_trusted_has_its_remedy(wecom: MockContacts, tmp_path: Path) -> None:
    """As of every party that is reached by HTTP."""
    with RawServer(b"", tls=self_signed(tmp_path)[0]) as server:
        (finding,) = examine(wecom, WECOM_API_URL=server.url)

    assert "certificate verify failed" in finding.text
    assert "REQUESTS_CA_BUNDLE" in finding.remedy


@pytest.mark.parametrize("userid", ["", "lisi", encrypted("lisi")])
def test_a_directory_that_works_is_ok(userid: str, wecom: MockContacts) -> None:
    """A person may be named, by a plain or an encrypted id; the report has no name."""
    found = examine(wecom, userid)

    assert [finding.outcome for finding in found] == ["ok", "ok"]
    assert "李四" not in str(found)
    assert not userid or "2 departments" in found[0].text


@pytest.mark.parametrize(
    ("changes", "errcodes", "remedy"),
    [
        ({"WECOM_CONTACT_SECRET": "wrong"}, {}, "correct WECOM_CONTACT_SECRET"),
        ({"WECOM_CORP_ID": "ww9"}, {}, "correct WECOM_CORP_ID"),
        ({"WECOM_API_URL": f"http://127.0.0.1:{free_port()}"}, {}, "WECOM_API_URL resolves"),
        ({}, {"user/get": 60020}, "企业可信IP"),
        ({}, {"user/get": 48002}, "self-built application"),
        ({}, {"gettoken": 45009}, "wait a minute"),
        ({}, {"gettoken": 12345}, "look the errcode up"),
    ],
)
def test_a_fault_has_its_remedy(
    changes: dict[str, str], errcodes: dict[str, int], remedy: str, wecom: MockContacts
) -> None:
    """One line that failed, without the Secret."""
    wecom.errcodes.update(errcodes)

    (finding,) = examine(wecom, **changes)

    assert finding.outcome == "failed"
    assert remedy in finding.remedy
    assert SECRET not in str(finding)


def test_an_address_that_is_no_api_is_named(wecom: MockContacts) -> None:
    """A web page answers with 200, too."""
    wecom.faults["*"] = "garbage"

    (finding,) = examine(wecom)

    assert "correct WECOM_API_URL" in finding.remedy


def test_a_person_outside_the_visible_range_is_named(wecom: MockContacts) -> None:
    """The remedy is on the application's page."""
    wecom.members["hidden"] = Member("hidden", "某人", visible=False)

    found = examine(wecom, "hidden")

    assert [finding.outcome for finding in found] == ["failed", "ok"]
    assert "可见范围" in found[0].remedy


def test_a_secret_that_converts_no_ids_is_a_warning(wecom: MockContacts) -> None:
    """People are read all the same, where their ids come plain."""
    wecom.errcodes["batch/openuserid_to_userid"] = 48002

    assert [finding.outcome for finding in examine(wecom)] == ["ok", "warning"]

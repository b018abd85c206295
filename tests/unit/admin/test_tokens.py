"""Administrators by their tokens: those of the settings, and those of the database."""

from __future__ import annotations

import pytest

from services.admin.tokens import (
    KNOWN_SECONDS,
    MOST_KNOWN,
    OUTAGE_SECONDS,
    ROLES,
    Administrator,
    AdminTokens,
    GivenToken,
    Role,
    digest_of,
    new_token,
)
from services.errors import StoreUnavailable
from tests.support.servers.processes import FakeClock

GIVEN = (
    GivenToken("ADMIN_TOKEN", "admin", "obviously-fake-token"),
    GivenToken("li", "viewer", f"sha256:{digest_of('laibao-made-by-the-tool')}"),
)


class FakeStored:
    """The tokens of a database, which can be away."""

    def __init__(self) -> None:
        self.tokens: dict[str, Administrator] = {}
        self.away = False
        self.looks = 0

    def find(self, digest: str) -> Administrator | None:
        self.looks += 1
        if self.away:
            raise StoreUnavailable("sql")
        return self.tokens.get(digest)


class Deployment:
    """The tokens of a deployment with a database in which wang is an operator."""

    def __init__(self) -> None:
        self.clock, self.stored, self.token = FakeClock(), FakeStored(), new_token()
        self.wang = Administrator("wang", "operator")
        self.stored.tokens[digest_of(self.token)] = self.wang
        self.tokens = AdminTokens(GIVEN, self.stored, clock=self.clock)


@pytest.fixture
def deployment() -> Deployment:
    return Deployment()


@pytest.mark.parametrize(
    ("shown", "found"),
    [
        ("obviously-fake-token", Administrator("ADMIN_TOKEN", "admin")),
        ("laibao-made-by-the-tool", Administrator("li", "viewer")),
        (digest_of("laibao-made-by-the-tool"), None),
        (f"sha256:{digest_of('laibao-made-by-the-tool')}", None),
        ("", None),
        ("\ud800", None),
    ],
)
def test_the_settings_tokens_name_their_administrators(shown: str, found: Administrator | None) -> None:
    """Of a hashed entry only the token itself is valid: what stands in the settings opens nothing."""
    assert AdminTokens(GIVEN).find(shown) == found


def test_the_settings_tokens_need_no_database(deployment: Deployment) -> None:
    """They are valid while the database is away, and cost no look."""
    deployment.stored.away = True

    assert deployment.tokens.find("obviously-fake-token") == Administrator("ADMIN_TOKEN", "admin")
    assert deployment.stored.looks == 0


@pytest.mark.parametrize("role", ROLES)
def test_a_role_includes_those_before_it(role: Role) -> None:
    """A viewer is none of the others, an admin is all."""
    mine = Administrator("one", role)

    assert [other for other in ROLES if mine.may(other)] == list(ROLES[: ROLES.index(role) + 1])


def test_a_revoked_token_is_refused_within_five_seconds(deployment: Deployment) -> None:
    """Until then the database is not asked again."""
    assert deployment.tokens.find(deployment.token) == deployment.wang
    deployment.stored.tokens.clear()

    assert deployment.tokens.find(deployment.token) == deployment.wang
    assert deployment.stored.looks == 1

    deployment.clock.now += KNOWN_SECONDS
    assert deployment.tokens.find(deployment.token) is None


def test_a_known_token_outlives_an_outage_for_an_hour(deployment: Deployment) -> None:
    """An unknown one cannot be checked then, which is no proof that it is wrong."""
    deployment.tokens.find(deployment.token)
    deployment.stored.away = True
    deployment.clock.now += KNOWN_SECONDS

    assert deployment.tokens.find(deployment.token) == deployment.wang
    with pytest.raises(StoreUnavailable):
        deployment.tokens.find("another-token")
    deployment.clock.now += OUTAGE_SECONDS
    with pytest.raises(StoreUnavailable):
        deployment.tokens.find(deployment.token)


def test_no_more_tokens_are_known_than_the_limit(deployment: Deployment) -> None:
    """Wrong ones are not kept at all."""
    made = [f"token-{number}" for number in range(MOST_KNOWN + 1)]
    deployment.stored.tokens = {digest_of(token): deployment.wang for token in made}

    for token in (*made, "wrong"):
        deployment.tokens.find(token)

    assert len(deployment.tokens._known) == MOST_KNOWN

"""The whole product on a real Redis Cluster and behind real Sentinels: questions, the doctor, the list of streams."""

from __future__ import annotations

import pytest

from tests.app.tools.doctor.test_doctor import examine, only
from tests.support.replicas import AppServer, settings_for
from tests.support.servers.processes import RedisServer
from tests.support.servers.redis_setups import ClusterServers
from tools import streams
from tools._doctor.redis import check_redis

pytestmark = [pytest.mark.scenario, pytest.mark.full]

KINDS = pytest.mark.parametrize("kind", ["cluster_url", "sentinel_url"])


@pytest.fixture
def url(kind: str, request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(kind))


@KINDS
def test_people_are_answered_and_their_streams_are_listed(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Twenty questions reach every node, and the list has all their streams."""
    with AppServer(url) as app_server:
        bubbles = []
        for number in range(20):
            with app_server.user(f"user{number}") as user:
                bubbles.append(user.says("年假怎么申请"))
                user.sees_finish(bubbles[-1], every=0.05)

        capsys.readouterr()
        assert streams.main(["list"], load=lambda: app_server.container.settings) == 0
        header, *lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("{")]

    assert header.startswith("STREAM ")
    assert {line.split()[0] for line in lines} == {bubble.stream_id for bubble in bubbles}
    assert {line.split()[-1] for line in lines} == {"completed"}


@KINDS
def test_the_doctor_checks_clusters_and_sentinels(url: str, kind: str) -> None:
    """The doctor reports a common finding of several primaries once, and warns of one without a replica."""
    found = examine(check_redis, settings_for(url))

    checks = [
        "redis",
        "redis version",
        "redis memory",
        "redis persistence",
        "redis replicas",
        "redis scripts",
        "redis clock",
    ]
    assert [finding.check for finding in found] == checks
    assert {finding.check: finding.outcome for finding in found} == {
        **dict.fromkeys(checks, "ok"),
        "redis persistence": "warning",
        "redis replicas": "ok" if kind == "sentinel_url" else "warning",
    }


@pytest.mark.parametrize(
    ("scheme", "path", "remedy"),
    [("redis", "/1", "begin REDIS_URL with redis+cluster://"), ("redis+sentinel", "/main", "names the Sentinels")],
)
def test_an_address_of_the_wrong_kind_is_explained(
    scheme: str, path: str, remedy: str, redis_cluster: ClusterServers
) -> None:
    """The doctor rejects a Cluster node given as a single server or as a Sentinel."""
    address = f"{scheme}://127.0.0.1:{redis_cluster.nodes[0].port}{path}"

    assert remedy in only(examine(check_redis, settings_for(address)), "failed").remedy


def test_a_server_that_is_no_cluster_is_explained(redis_server: RedisServer) -> None:
    """The doctor rejects a single server given as a Cluster."""
    address = f"redis+cluster://127.0.0.1:{redis_server.port}"

    assert "this is no Cluster" in only(examine(check_redis, settings_for(address)), "failed").remedy

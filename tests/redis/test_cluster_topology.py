"""The topology of a Redis Cluster, from the reply to CLUSTER SLOTS."""

from __future__ import annotations

import pytest
import redis

from services.redis.cluster import Topology

ASKED = ("10.0.0.1", 7000)
#: Two primaries with a replica each; the second primary does not know its own name.
ROWS = [
    [0, 8191, ["10.0.0.1", 7000, "a"], ["10.0.0.2", 7000, "b"]],
    [8192, 16383, ["", 7001, "c"], ["10.0.0.2", 7001, "d"]],
]


def test_each_slot_has_its_primary_and_each_node_is_known() -> None:
    """A key goes to the primary of its slot; replicas are nodes too, each listed once."""
    topology = Topology(ASKED, ROWS)

    assert topology.primaries == [("10.0.0.1", 7000), ("10.0.0.1", 7001)]
    assert topology.nodes == [("10.0.0.1", 7000), ("10.0.0.2", 7000), ("10.0.0.1", 7001), ("10.0.0.2", 7001)]
    # The slots of these keys by CLUSTER KEYSLOT: 5061 and 12182.
    assert [topology.address_of(key) for key in ("bar", "foo")] == [("10.0.0.1", 7000), ("10.0.0.1", 7001)]
    assert topology.address_of("") in topology.primaries


def test_a_cluster_without_slots_is_an_error() -> None:
    """A node that has not joined its cluster knows of no slots."""
    with pytest.raises(redis.ConnectionError, match=r"10\.0\.0\.1:7000 knows of no node"):
        Topology(ASKED, [])

"""Names that other people's code imports: they lead to where the thing is now."""

from __future__ import annotations

import importlib

import pytest

#: A former name, and the name it stands for.
FORMER = [
    ("services.asking_service.AskingService", "services.providers.client.asking_service.AskingService"),
    ("config.gunicorn_worker.DrainingWorker", "server.worker.DrainingWorker"),
    ("demo.WXBizJsonMsgCrypt.WXBizJsonMsgCrypt", "services.wecom.crypto.WXBizJsonMsgCrypt"),
    ("demo.WXBizJsonMsgCrypt.Prpcrypt", "services.wecom.crypto.Prpcrypt"),
    ("demo.ierror.WXBizMsgCrypt_OK", "services.wecom.codes.WXBizMsgCrypt_OK"),
    ("services.sql_batch_tables.statements", "services.batches.sql.tables.statements"),
]
#: What docs/providers.md has people import; these have not moved.
KEPT = ["services.providers.base.BaseRAGProvider", "services.errors.ProviderError", "services.models.Delta"]


def found(name: str) -> object:
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


@pytest.mark.parametrize(("former", "name"), FORMER)
def test_a_former_name_is_the_same_thing(former: str, name: str) -> None:
    """Code that was written for an earlier version goes on working."""
    assert found(former) is found(name)


@pytest.mark.parametrize("name", KEPT)
def test_a_provider_of_ones_own_finds_what_it_imports(name: str) -> None:
    """The names that docs/providers.md shows are there."""
    assert found(name)

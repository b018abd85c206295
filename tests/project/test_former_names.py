"""Names of earlier versions that other people's code imports still lead to the same objects."""

from __future__ import annotations

import importlib

import pytest

#: Former names and the present ones.
FORMER = [
    ("services.asking_service.AskingService", "services.providers.client.asking_service.AskingService"),
    ("config.gunicorn_worker.DrainingWorker", "server.worker.DrainingWorker"),
    ("demo.WXBizJsonMsgCrypt.WXBizJsonMsgCrypt", "services.wecom.crypto.WXBizJsonMsgCrypt"),
    ("demo.WXBizJsonMsgCrypt.Prpcrypt", "services.wecom.crypto.Prpcrypt"),
    ("demo.ierror.WXBizMsgCrypt_OK", "services.wecom.codes.WXBizMsgCrypt_OK"),
]
#: Names that docs/providers.md uses and that have not moved.
KEPT = ["services.providers.base.BaseRAGProvider", "services.errors.ProviderError", "services.models.Delta"]


def found(name: str) -> object:
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


@pytest.mark.parametrize(("former", "name"), FORMER)
def test_a_former_name_is_the_same_thing(former: str, name: str) -> None:
    """Code that was written for an earlier version goes on working."""
    assert found(former) is found(name)


@pytest.mark.parametrize("name", KEPT)
def test_names_for_custom_providers_exist(name: str) -> None:
    """The names that docs/providers.md shows can be imported."""
    assert found(name)

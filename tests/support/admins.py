"""Administrators for tests of addresses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Blueprint, Flask
from werkzeug.test import TestResponse

from channels.web.errors import register_rest_errors
from channels.web.guarded import Administrators
from config.texts import Texts
from services.admin.sql_store import Act
from services.admin.tokens import ROLES, AdminTokens, GivenToken
from services.identity.guesses import Guesses


def one_admin(token: str | None) -> AdminTokens:
    """Return the tokens of a deployment with this `ADMIN_TOKEN` alone."""
    return AdminTokens([GivenToken("ADMIN_TOKEN", "admin", token)] if token else [])


class AdminApi:
    """Addresses below /api/admin/, an administrator of each role who has its name, and what the audit got."""

    def __init__(self, *addresses: Callable[[Administrators], Blueprint]) -> None:
        self.acts: list[Act] = []
        tokens = AdminTokens(GivenToken(role, role, f"fake-token-of-{role}") for role in ROLES)
        app = Flask("admin")
        administrators = Administrators(tokens, Guesses(), None, self.acts.append)
        for each in addresses:
            app.register_blueprint(each(administrators))
        register_rest_errors(app, Texts(), {})
        self._client = app.test_client()

    def asks(self, method: str, path: str, role: str = "viewer", **sent: Any) -> TestResponse:
        headers = {"Authorization": f"Bearer fake-token-of-{role}"}
        return self._client.open(f"/api/admin/{path}", method=method, headers=headers, **sent)

    def sends(self, method: str, path: str, role: str, sent: Any = None) -> tuple[int, Any]:
        """Return the status and the data of the reply."""
        reply = self.asks(method, path, role, json=sent)
        return reply.status_code, reply.get_json()["data"]

    def gets(self, path: str, role: str = "viewer") -> tuple[int, Any]:
        """Return the status and the data of an address."""
        return self.sends("GET", path, role)

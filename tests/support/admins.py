"""Administrators for tests of addresses."""

from __future__ import annotations

from services.admin.tokens import AdminTokens, GivenToken


def one_admin(token: str | None) -> AdminTokens:
    """Return the tokens of a deployment with this `ADMIN_TOKEN` alone."""
    return AdminTokens([GivenToken("ADMIN_TOKEN", "admin", token)] if token else [])

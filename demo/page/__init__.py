"""The demo's page and its server."""

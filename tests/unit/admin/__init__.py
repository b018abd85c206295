"""Tests of services/admin."""

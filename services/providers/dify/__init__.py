"""Dify as a provider: its service API, its event streams, the recovery of answers that another replica asked for."""

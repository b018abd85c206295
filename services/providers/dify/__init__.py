"""The Dify provider: its service API, its event streams, and the recovery of answers another replica asked for."""

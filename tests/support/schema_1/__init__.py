"""A replica of the version before takeover, kept as it was: two versions run side by side during a rolling update."""

"""A replica of schema version 1, kept unchanged: old and new versions run side by side during a rolling update."""

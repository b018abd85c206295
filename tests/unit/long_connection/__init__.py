"""The long connection."""

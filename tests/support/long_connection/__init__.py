"""Drivers of the long connection."""

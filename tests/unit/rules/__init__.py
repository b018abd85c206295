"""Rules from files."""

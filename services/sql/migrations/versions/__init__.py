"""The migrations, a file for each revision."""

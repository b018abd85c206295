"""Commands for a terminal: `python -m tools.<name>`. A package with an underscore belongs to one command."""

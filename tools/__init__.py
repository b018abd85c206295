"""Command line tools: `python -m tools.<name>`. A package with an underscore contains the modules of one command."""

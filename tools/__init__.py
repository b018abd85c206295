"""Commands for a terminal: `python -m tools.<name>`. A package with an underscore belongs to one command.

`_command` runs a click command and returns its exit status: click's own `main` would end a closed pipe with 1 instead
of 141. `_page` prints outside text without keys and control codes.
"""

"""Rules that people of the company write into files, in force without a restart.

`rules_file` reads a file, and again when it changes; a broken change keeps the last good rules. `words` are the words
that questions and answers must not have. A new kind of rules is a parser here, a `RulesFile` in the container and a
setting that names its file.
"""

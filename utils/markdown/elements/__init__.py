"""Elements of Markdown that CommonMark lacks, or that it parses differently from the usage in Chinese texts.

Each module has rules for the parser of `utils.markdown.html`, or for its output. Their HTML passes
the allow-list of `utils.markdown.html` like all other HTML.
"""

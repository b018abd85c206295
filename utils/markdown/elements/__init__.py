"""Elements of Markdown that CommonMark lacks, or reads otherwise than people who write Chinese mean it.

Each module has rules for the parser of `utils.markdown.html`, or for its output. None of them makes HTML of the text's
own: what they return passes the allow-list of `utils.markdown.html` like everything else.
"""

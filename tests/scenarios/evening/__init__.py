"""One evening of a company, and its books: `make evening`, or `python -m tests.scenarios.evening`.

`company` has the people with their departments, limits and channels, `books` what each party says of the evening and
where they disagree, `__main__` the arguments and the run.
"""

"""Rules of language: which utterances are questions, which of them need a web search, which column of a file has
questions, and which texts are commands.

How well detection does on utterances it was not developed on: tests/unit/questions/utterances/README.md.
"""

"""Rules of language: which utterances ask, which questions want a web search, where a file has
questions, and which texts are commands.

How well detection does on utterances it was not developed on: docs/performance.md, "Questions in transcripts".
"""

"""Rules of language: does an utterance ask, does a question want a web search, where a file has questions."""

"""Language rules: detect questions in utterances, detect questions that need a web search, find questions in files."""

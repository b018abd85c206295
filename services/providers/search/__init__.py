"""A web search in front of another provider: its results are the answer, or what the provider answers from."""

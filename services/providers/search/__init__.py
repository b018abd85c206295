"""A web search before another provider. Its results are the answer, or the context the provider answers from."""

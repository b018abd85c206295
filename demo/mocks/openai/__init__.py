"""A mock of an OpenAI-compatible server: streams, ends and failures by name."""

"""Any OpenAI-compatible server as a provider."""

"""The provider for OpenAI-compatible servers."""

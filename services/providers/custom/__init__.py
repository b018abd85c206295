"""A company's own question answering service as a provider: JSON in, JSON out, streamed or whole."""

"""The provider for a company's own question answering service: JSON requests, JSON replies, streamed or not."""

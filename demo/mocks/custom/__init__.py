"""A mock of a company's own answer service."""

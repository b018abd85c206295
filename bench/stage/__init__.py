"""The environment of a benchmark: real replicas, a real Redis, a mock Dify that uses little CPU, the machine."""

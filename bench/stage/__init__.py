"""The servers of a benchmark: Redis, replicas, a mock Dify that uses little CPU; and a description of the machine."""

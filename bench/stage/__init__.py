"""The surroundings of a benchmark: real replicas, a real Redis, a Dify that costs little, the machine."""

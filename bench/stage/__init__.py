"""What a benchmark runs on: real replicas, a real Redis, a Dify that costs little, the machine."""

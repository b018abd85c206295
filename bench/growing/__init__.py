"""The parts of `python -m bench.growth`: the length of answers, live streams, and replicas."""

"""The parts of `python -m bench.growth`: length of answers, live streams, replicas."""

"""The simulator: a person and WeCom in front of a real callback, for the demo and the tests."""

"""A simulator of a user and of WeCom that calls a real callback, for the demo and the tests."""

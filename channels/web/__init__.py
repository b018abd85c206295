"""What all HTTP addresses share: reading requests, who asks, errors in one shape, origins, compression.

A new REST address begins with an `Operation` of `rest.py`.
"""

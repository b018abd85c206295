"""Code shared by all HTTP addresses: request parsing, authentication, errors, origin checks, compression, pages.

Start with an `Operation` of `rest.py` to add a REST address.
"""

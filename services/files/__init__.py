"""Pictures and files of an answer: found, fetched, checked, kept in Redis, and linked from the outside.

Imports `streams`, `http` and `redis`. `store.py` has the keys; `links.py` signs the addresses below `/files/`, and
`offered.py` is what a reader is shown of an answer's files. `foreign.py` fetches pictures of results that outlive their
streams, each time they are shown.
"""

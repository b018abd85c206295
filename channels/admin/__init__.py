"""The administrators' API, below /api/admin/.

`endpoints.py` checks the role by `channels/web/guarded.py`, writes what changes something or shows words into the
audit, and answers from the stores; a new address is an `Operation` and a view there.
"""

"""The administrators' API, below /api/admin/.

`endpoints.py` has sessions, answers in progress and the audit, `reports.py` the question log and the usage,
`overview.py` the figures of the day, the replicas, and what is wrong now. A view
checks the role by `channels/web/guarded.py`, writes what changes something or shows words into the audit, and answers
from the stores; a new address is an `Operation` and a view.
"""

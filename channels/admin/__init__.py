"""The administrators' API, below /api/admin/.

`overview.py` has the figures of the day, the replicas, and what is wrong now; `endpoints.py` sessions, answers in
progress and the audit; `reports.py` the question log and the usage, with `story.py`, `charts.py` and `files.py` for
their stories, charts and CSV files; `feedback.py` ratings and questions without a good answer, and asks them again;
`comparison.py` has the former answers beside the new ones; `rules.py` the files of rules; `batches.py` the batches and
`pushes.py` the pushes of all callers. A view checks the role by `channels/web/guarded.py`, writes what changes
something or shows words into the audit, and answers from the stores; a new address is an `Operation` and a view.
"""

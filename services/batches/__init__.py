"""Batches of questions: tasks and items in SQL, lanes in Redis, workers that ask items through the gateway.

Imports `answers` and lower floors. Submitting and changing a task begins in `manager.py`, the work on an item in
`worker.py` and `item.py`.
"""

"""Batches of questions: tasks and items in SQL, lanes in Redis, workers that put items to the gateway.

Imports `answers` and everything below. Submitting and changing a task begins in `manager.py`, the work on an item in
`worker.py` and `item.py`.
"""

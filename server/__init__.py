"""The production server: gunicorn's worker that drains, its connections, the fast path of WeCom's callbacks.

May import everything below the application. A change of how a replica starts, drains or accepts connections begins in
`worker.py`; `lane.py` is the callbacks' fast path alone.
"""

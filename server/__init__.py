"""The production server: a gunicorn worker that drains, its connections, and the fast path of WeCom callbacks.

May import every package except the application. Changes to how a replica starts, drains or accepts connections begin
in `worker.py`. The fast path is in `lane.py` and `connection.py`; `lane.ENABLED` turns it off.
"""

"""Former name, for one release: use `server.worker.DrainingWorker` as gunicorn's worker class."""

from server.worker import DrainingWorker

__all__ = ["DrainingWorker"]

"""What plain `gunicorn` in this folder serves: the app by its settings, with workers that drain."""

from gevent import monkey

monkey.patch_all()

import sys  # noqa: E402 - nothing may be imported before the patch: a lock made earlier freezes a worker
from math import ceil  # noqa: E402

from config.gunicorn_worker import count_reload  # noqa: E402
from config.settings import load_settings  # noqa: E402
from services.errors import SettingsError  # noqa: E402

try:
    settings = load_settings()
except SettingsError as exc:
    sys.exit(f"wechatlaibao: {exc}")

wsgi_app = "app:create_app()"
bind = f"{settings.host}:{settings.port}"
workers = settings.workers
worker_class = "config.gunicorn_worker.DrainingWorker"
on_reload = count_reload
http_parser = "auto"
#: One greenlet per connection: every socket, and polls and REST calls beside them.
worker_connections = settings.sockets_max + 500
#: The drain, and what the worker takes to end after it.
graceful_timeout = ceil(settings.drain_seconds) + 10
timeout = 60
keepalive = 15
forwarded_allow_ips = "*" if settings.trusted_proxies else "127.0.0.1"
#: gunicorn's own control socket is a file; the root file system may be read-only.
control_socket_disable = True
worker_tmp_dir = "/dev/shm"
accesslog = None

"""Create the application. Run `gunicorn` in this folder to serve it, or `python app.py` for a single worker."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from bootstrap.blueprints import (
    file_uploads,
    register_admin,
    register_batches,
    register_docs,
    register_http_chat,
    register_pushes,
    register_sockets,
)
from bootstrap.container import Container
from bootstrap.wecom import group_alerts, subscribe_bots, wecom_messages
from channels.openai.errors import PREFIX, openai_error
from channels.registry import CHANNELS
from channels.web.alerts import alerts_blueprint
from channels.web.bodies import BodyBudget, CountedBodies
from channels.web.compression import compress_answers
from channels.web.cross_site import keep_pages_out
from channels.web.errors import register_rest_errors
from channels.web.files import files_blueprint
from channels.web.guarded import Administrators, GuardedCallers
from channels.web.middleware import PlainPaths, RequestTraces
from channels.web.ops import ops_blueprint
from channels.web.pages.pages import missing_page
from channels.wecom.callbacks import CallbackEndpoint
from channels.wecom.channel import WeComChannel, wecom_blueprint
from config import VERSION
from config.errors import SettingsError
from config.logging import configure_logging
from config.settings import Settings, load_settings
from server import reloads
from server.connection_slots import ConnectionLimits
from services import metrics
from services.admin.sessions import AdminSessions
from services.channels import Channel
from services.errors import CallbackRefused
from services.identity.guesses import Guesses
from services.ops.metrics_files import MetricsPage, render_apart
from services.ops.metrics_folder import VARIABLE
from utils.limited_log import LimitedLog

log = logging.getLogger(__name__)


def create_app(settings: Settings | None = None, channels: Iterable[Channel] = CHANNELS) -> Flask:
    """Build the application. No connection is opened before a request needs it."""
    settings = settings or load_settings()
    configure_logging(settings.log_level, settings.log_format, settings.log_dir, secrets=settings.secrets)
    container = Container(settings, channels)
    app = Flask(__name__, static_folder=None)
    app.extensions["wechatlaibao"] = container
    messages = wecom_messages(container)
    channel = WeComChannel(
        gateway=container.gateway,
        messages=messages,
        bots=container.wechat,
        texts=container.texts,
        frames=container.frames,
        files=container.files.store,
    )
    guesses = Guesses()
    callers = GuardedCallers(container.callers, guesses)
    record = container.admin_store.record if container.admin_store else None
    sessions = AdminSessions(container.admin_tokens, container.keys.sessions())
    administrators = Administrators(container.admin_tokens, guesses, settings.ops_port, record, sessions)
    app.register_blueprint(wecom_blueprint(channel))
    app.register_blueprint(
        ops_blueprint(
            name=settings.app_name,
            version=VERSION,
            health=container.health,
            readiness=lambda: container.readiness,
            metrics=metrics_page().text,
            administrators=administrators,
            ops_port=settings.ops_port,
        )
    )
    tokens = [token.get_secret_value() for token in settings.alert_token]
    alerts = group_alerts(container)
    app.register_blueprint(alerts_blueprint(alerts, tokens, guesses, settings.ops_port))
    pushes = subscribe_bots(container, messages)
    uploads = file_uploads(container)
    register_sockets(app, container, callers, administrators, uploads)
    register_admin(app, container, administrators, alerts)
    register_http_chat(app, container, callers, uploads)
    register_batches(app, container, callers)
    register_pushes(app, container, callers, administrators, pushes)
    app.register_blueprint(files_blueprint(container.files.delivery))
    register_docs(app, settings, container.texts, version=VERSION)
    note = partial(note_refusal, lines=LimitedLog(log, "callback refused"))
    app.register_error_handler(CallbackRefused, partial(refuse_callback, note))
    missing = missing_page(texts=container.texts, app_name=settings.app_name)
    register_rest_errors(app, container.texts, {PREFIX: partial(openai_error, texts=container.texts)}, missing=missing)
    compress_answers(app)
    keep_pages_out(app, origins=settings.public_origins, hosts=settings.allowed_hosts, ops_port=settings.ops_port)
    add_middleware(app, settings, channel, note)
    for warning in settings.warnings:
        log.warning("settings", extra={"warning": warning})
    container.start()
    return app


def add_middleware(
    app: Flask, settings: Settings, channel: WeComChannel, note: Callable[[CallbackRefused], None]
) -> None:
    """Put what limits bodies and connections, and what answers callbacks, in front of the application."""
    budget = BodyBudget(most=settings.bodies_max_bytes, most_per_caller=settings.bodies_max_bytes_per_caller)
    counted = CountedBodies(app.wsgi_app, budget, open_to_all=settings.websocket_auth == "none")
    callbacks = CallbackEndpoint(RequestTraces(counted), channel, note)
    app.wsgi_app = PlainPaths(callbacks)  # type: ignore[method-assign]
    # The worker's fast path (`server/fast_path.py`) calls it without WSGI.
    app.extensions["wechatlaibao.callbacks"] = callbacks
    app.extensions["wechatlaibao.connections"] = ConnectionLimits(settings.connections_per_ip, settings.trusted_proxies)
    if settings.trusted_proxies:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=settings.trusted_proxies)  # type: ignore[method-assign]


def create_worker_app() -> Flask:
    """Build the application of a gunicorn worker, with the settings that its master has checked."""
    return create_app(reloads.checked_settings())


def metrics_page() -> MetricsPage:
    """Return the metrics page: of all workers if gunicorn has set a metrics folder, otherwise of this process."""
    folder = os.environ.get(VARIABLE)
    return MetricsPage(partial(render_apart, Path(folder)) if folder else metrics.render)


def refuse_callback(note: Callable[[CallbackRefused], None], error: CallbackRefused) -> tuple[dict[str, str], int]:
    """Reply the same to every failed check; only the log names the check."""
    note(error)
    return {"code": CallbackRefused.code}, error.status


def note_refusal(error: CallbackRefused, *, lines: LimitedLog) -> None:
    metrics.CALLBACKS_REFUSED.labels(error.code).inc()
    lines.warning({"check": error.code, "cause": str(error), **error.about})


def main() -> None:
    """Replace this process by gunicorn with one worker; a wrong setting exits with one line."""
    try:
        settings = load_settings()
    except SettingsError as exc:
        sys.exit(f"wechatlaibao: {exc}")
    reload = ["--reload"] if settings.reload else []
    os.execv(sys.executable, [sys.executable, "-m", "gunicorn", "--workers", "1", *reload])


if __name__ == "__main__":
    main()

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

from channels.batch.endpoints import batch_blueprint
from channels.chat.answers import Html
from channels.chat.channel import chat_blueprint
from channels.http_chat.endpoints import HttpChat, http_chat_blueprint
from channels.http_chat.feedback import feedback_blueprint
from channels.http_chat.waits import WaitingRequests
from channels.realtime.batch_news import BatchNews
from channels.realtime.channel import RealtimeOptions, realtime_blueprint
from channels.registry import CHANNELS
from channels.sockets.connections import connections_blueprint
from channels.sockets.endpoint import SocketLimits, Sockets
from channels.web.compression import compress_answers
from channels.web.cross_site import keep_pages_out
from channels.web.errors import register_rest_errors
from channels.web.guarded import Administrators, GuardedCallers
from channels.web.ops import ops_blueprint
from channels.web.pages.docs import docs_blueprint
from channels.web.pages.index import index_blueprint
from channels.web.pages.pages import pages_blueprint
from channels.web.plain_paths import PlainPaths
from channels.wecom.callbacks import CallbackEndpoint
from channels.wecom.channel import WeComChannel, wecom_blueprint
from channels.wecom.commands import BotCommands
from channels.wecom.handoff import HandoffManager
from config.logging import configure_logging
from config.settings import Settings, load_settings
from server.connection_slots import ConnectionLimits
from services import metrics
from services.channels import Channel
from services.container import Container
from services.errors import CallbackRefused, SettingsError
from services.limits.guesses import Guesses
from services.ops.metrics_files import render_apart
from services.ops.metrics_folder import VARIABLE
from services.ops.metrics_page import MetricsPage
from services.wecom.group_robot_service import GroupRobotService
from utils.limited_log import LimitedLog
from utils.markdown.blocks import BlockRenderer, render_slices
from utils.questions.detection import detect

log = logging.getLogger(__name__)

VERSION = "0.1.0"


def create_app(settings: Settings | None = None, channels: Iterable[Channel] = CHANNELS) -> Flask:
    """Build the application. No connection is opened before a request needs it."""
    settings = settings or load_settings()
    configure_logging(settings.log_level, settings.log_format, settings.log_dir, secrets=settings.secrets)
    container = Container(settings, channels)
    app = Flask(__name__, static_folder=None)
    app.extensions["wechatlaibao"] = container
    channel = WeComChannel(
        gateway=container.gateway,
        bots=container.wechat,
        texts=container.texts,
        welcomes={name: bot.welcome for name, bot in settings.bots.items()},
        commands=bot_commands(container),
        frames=container.frames,
        person=container.gateway.person,
        feedback=container.feedback_inbox,
    )
    guesses = Guesses()
    callers = GuardedCallers(container.callers, guesses)
    token = settings.admin_token.get_secret_value() if settings.admin_token else None
    administrators = Administrators(token, guesses, settings.ops_port)
    app.register_blueprint(wecom_blueprint(channel))
    app.register_blueprint(
        ops_blueprint(
            name=settings.app_name,
            version=VERSION,
            health=container.health,
            ready=lambda: container.ready,
            metrics=metrics_page().text,
            administrators=administrators,
            ops_port=settings.ops_port,
        )
    )
    register_sockets(app, container, callers, administrators)
    register_http_chat(app, container, callers)
    register_batches(app, container, callers)
    register_docs(app, settings)
    note = partial(note_refusal, lines=LimitedLog(log, "callback refused"))
    app.register_error_handler(CallbackRefused, partial(refuse_callback, note))
    register_rest_errors(app, container.texts.known)
    compress_answers(app)
    keep_pages_out(app, origins=settings.public_origins, hosts=settings.allowed_hosts, ops_port=settings.ops_port)
    callbacks = CallbackEndpoint(app.wsgi_app, channel, note)
    app.wsgi_app = PlainPaths(callbacks)  # type: ignore[method-assign]
    # The worker's fast path (server/lane) calls it without WSGI.
    app.extensions["wechatlaibao.callbacks"] = callbacks
    app.extensions["wechatlaibao.connections"] = ConnectionLimits(settings.connections_per_ip, settings.trusted_proxies)
    if settings.trusted_proxies:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=settings.trusted_proxies)  # type: ignore[method-assign]
    for warning in settings.warnings:
        log.warning("settings", extra={"warning": warning})
    container.start()
    return app


def bot_commands(container: Container) -> dict[str, BotCommands]:
    """Return the commands of each bot, and have their messages to group robots posted while the replica runs."""
    bots = container.settings.bots
    urls = {name: bot.handoff_webhook.get_secret_value() for name, bot in bots.items() if bot.handoff_webhook}
    robots = {name: GroupRobotService(url) for name, url in urls.items()}
    handoffs = HandoffManager(robots, read=container.streams.read, texts=container.texts)
    container.attach(handoffs)
    return {
        name: BotCommands(bot.bot_name or name, bot.commands, container.gateway, handoffs, container.texts)
        for name, bot in bots.items()
    }


def register_sockets(app: Flask, container: Container, callers: GuardedCallers, administrators: Administrators) -> None:
    """Register the two WebSocket channels, their pages, and the administrators' list of connections."""
    settings = container.settings
    sockets = Sockets(
        callers=callers,
        limiter=container.limiter,
        store=container.socket_store,
        sentence=container.texts.get,
        origins=settings.public_origins,
        limits=SocketLimits(
            max_sockets=settings.sockets_max,
            heartbeat_interval=settings.websocket_heartbeat_interval,
            heartbeat_timeout=settings.websocket_heartbeat_timeout,
        ),
        ready=lambda: container.ready,
    )
    container.attach(sockets)
    html = Html(BlockRenderer, render_slices)
    gateway, limiter, texts = container.gateway, container.limiter, container.texts
    app.register_blueprint(chat_blueprint(sockets, gateway=gateway, limiter=limiter, texts=texts, html=html))
    news = BatchNews(container.batches) if container.batches else None
    if news:
        container.attach(news)
    options = RealtimeOptions(detect, texts, settings.realtime_stop)
    app.register_blueprint(
        realtime_blueprint(sockets, settings.ws_path, gateway=gateway, limiter=limiter, options=options, news=news)
    )
    app.register_blueprint(
        pages_blueprint(locale=settings.locale, app_name=settings.app_name, ws_path=settings.ws_path)
    )
    app.register_blueprint(connections_blueprint(sockets, administrators))


def register_http_chat(app: Flask, container: Container, callers: GuardedCallers) -> None:
    """Register `/api/chat`, which answers one question over plain HTTP."""
    waits = WaitingRequests(most=container.settings.http_waits_max, timeout=container.settings.stream_ttl)
    container.attach(waits)
    chat = HttpChat(
        gateway=container.gateway,
        limiter=container.limiter,
        waits=waits,
        texts=container.texts,
        ready=lambda: container.ready,
    )
    app.register_blueprint(http_chat_blueprint(chat, callers))
    app.register_blueprint(feedback_blueprint(container.feedback_inbox, callers, container.texts))


def register_batches(app: Flask, container: Container, callers: GuardedCallers) -> None:
    """Register the batch endpoints; without a database they reply that batches are unavailable."""
    app.register_blueprint(
        batch_blueprint(
            container.batches,
            callers,
            container.limiter,
            sentence=container.texts.known,
            max_bytes=container.settings.batch_max_bytes,
            question_max_bytes=container.settings.question_max_bytes,
        )
    )


def register_docs(app: Flask, settings: Settings) -> None:
    """Register the index of endpoints and the OpenAPI documentation."""
    name, path = settings.app_name, settings.ws_path
    app.register_blueprint(index_blueprint(name=name, version=VERSION, realtime_path=path))
    open_to_all = settings.websocket_auth == "none"
    app.register_blueprint(docs_blueprint(name=name, version=VERSION, realtime_path=path, open_to_all=open_to_all))


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

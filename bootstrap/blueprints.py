"""Registers the endpoints of each channel in the application, made of the parts of a replica's container."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from flask import Flask

from bootstrap.container import Container
from channels.admin.batches import Batches, batches_blueprint
from channels.admin.comparison import comparison_blueprint
from channels.admin.endpoints import admin_blueprint
from channels.admin.feedback import Again, ratings_blueprint
from channels.admin.overview import OverviewParts, overview_blueprint
from channels.admin.pushes import pushes_blueprint
from channels.admin.reports import Reports, reports_blueprint
from channels.admin.rules import RulesParts, rules_blueprint
from channels.batch.endpoints import BatchEndpoints
from channels.chat.answers import ChatDisplay, Html
from channels.chat.channel import ChatChannel, chat_blueprint
from channels.http_chat.endpoints import (
    HttpChat,
    feedback_blueprint,
    http_chat_blueprint,
    opening_blueprint,
    uploads_blueprint,
)
from channels.http_chat.replies import refusal
from channels.openai.endpoints import openai_channel
from channels.openai.errors import openai_refusal
from channels.options import AskableBots
from channels.push.endpoints import push_blueprint
from channels.realtime.channel import RealtimeOptions, realtime_blueprint
from channels.realtime.task_updates import TaskUpdates
from channels.sockets.connections import connections_blueprint
from channels.sockets.endpoint import SocketLimits, Sockets
from channels.sockets.peer import FrameSocket
from channels.sockets.socket import SocketTimes
from channels.waiting.requests import WaitingQuestions, WaitingRequests
from channels.web.bodies import UploadSlots
from channels.web.guarded import Administrators, GuardedCallers
from channels.web.pages.docs import docs_blueprint
from channels.web.pages.pages import admin_page_blueprint, index_blueprint, pages_blueprint
from channels.web.rest import RestError
from config.apps import provider_name
from config.bots import DEFAULT_BOT
from config.settings import Settings
from config.texts import Texts
from services.answers.extras import KeptOpening
from services.channels import api_bots
from services.files.shown import AnswerLinks
from services.files.uploads import FileUploads
from services.identity.callers import Caller
from services.rules.access import AccessRules
from services.rules.quotas import QuotaRules
from services.rules.words import WordRules
from services.streams.listing import RunningStreams
from services.wecom.alerts import GroupAlerts
from services.wecom.long_connection.pushes import PushInbox, PushSender
from utils.markdown.blocks import BlockRenderer, render_markdown, render_slices
from utils.markdown.pictures import with_pictures
from utils.questions.detection import detect


def register_pushes(
    app: Flask, container: Container, callers: GuardedCallers, administrators: Administrators, sender: PushSender
) -> None:
    """Register `/api/push` and the administrators' addresses; pushes to bots in callback mode are refused."""
    stores = container.long_stores
    bots = {name: bot.mode == "websocket" for name, bot in container.settings.bots.items()}
    inbox = PushInbox(stores.pushes, stores.allowance, stores.keys, bots=bots, wake=sender.wake)
    slots = upload_slots(container.settings, "push_busy", container.texts.get("push_busy"))
    app.register_blueprint(push_blueprint(inbox, slots, callers, container.texts))
    app.register_blueprint(pushes_blueprint(administrators, inbox))


def file_uploads(container: Container) -> FileUploads:
    """Return what takes the files that clients upload for their questions."""
    provider, max_bytes = container.providers[DEFAULT_BOT], container.settings.media_max_bytes
    return FileUploads(container.media.sent, provider, names=container.keys.names(), max_bytes=max_bytes)


def upload_slots(settings: Settings, reason: str, message: str) -> UploadSlots:
    """Return the slots of one address, with the code and the sentence of its refusal."""
    most, most_per_caller = settings.uploads_max, settings.uploads_max_per_caller
    return UploadSlots(reason, message, most=most, most_per_caller=most_per_caller)


def askable_bots(container: Container) -> dict[str, frozenset[str]]:
    """Return the bots that programs may ask, with the options that the provider of each takes, and every app too.

    The app of a question is not known when its options are checked.
    """
    providers, settings = container.providers, container.settings
    apps = [providers[provider_name("", app)].takes_options for app in settings.app_providers]
    return {bot: providers[bot].takes_options.intersection(*apps) for bot in api_bots(settings)}


def register_sockets(
    app: Flask,
    container: Container,
    callers: GuardedCallers,
    administrators: Administrators,
    uploads: FileUploads,
) -> None:
    """Register the two WebSocket channels, their pages, and the administrators' list of connections."""
    settings = container.settings
    sockets = Sockets(
        callers=callers,
        limiter=container.limiter,
        store=container.socket_store,
        texts=container.texts,
        origins=settings.public_origins,
        limits=SocketLimits(
            max_sockets=settings.sockets_max,
            times=SocketTimes(settings.websocket_heartbeat_interval, settings.websocket_heartbeat_timeout),
        ),
        ready=lambda: container.ready,
    )
    container.attach(sockets)
    blocks = partial(BlockRenderer, thinking=settings.web_thinking)
    html = Html(
        blocks,
        partial(render_slices, thinking=settings.web_thinking),
        AnswerLinks(container.files.links, container.files.store).picture,
    )
    gateway, limiter, texts = container.gateway, container.limiter, container.texts
    bots = AskableBots(askable_bots(container), texts)

    def open_chat(socket: FrameSocket, caller: Caller, client_id: str) -> ChatChannel:
        return ChatChannel(
            ChatDisplay(socket, client_id, texts=texts, html=html),
            caller,
            gateway=gateway,
            limiter=limiter,
            ratings=container.feedback_inbox,
            bots=bots,
            files=uploads,
        )

    app.register_blueprint(chat_blueprint(sockets, open_chat))
    updates = TaskUpdates(container.batches) if container.batches else None
    if updates:
        container.attach(updates)
    options = RealtimeOptions(detect, texts, settings.realtime_stop, blocks, html.picture)
    app.register_blueprint(
        realtime_blueprint(
            sockets, settings.ws_path, gateway=gateway, limiter=limiter, options=options, updates=updates
        )
    )
    app.register_blueprint(pages_blueprint(texts=texts, app_name=settings.app_name, ws_path=settings.ws_path))
    app.register_blueprint(connections_blueprint(sockets, administrators))


def register_admin(
    app: Flask,
    container: Container,
    administrators: Administrators,
    alerts: GroupAlerts | None,
) -> None:
    """Register the administrators' API and page. `alerts` posts to the operators' group, None without one."""
    settings = container.settings
    app.register_blueprint(admin_page_blueprint(administrators, texts=container.texts, app_name=settings.app_name))
    running = RunningStreams(container.runner, lease=settings.stream_lease)
    blueprint = admin_blueprint(
        administrators,
        running=running,
        streams=container.streams,
        cancel=container.gateway.cancel_any,
        audit=container.admin_store,
        test_alert=alerts.test if alerts else None,
        secure=(settings.public_url or "").startswith("https://"),
    )
    app.register_blueprint(blueprint)
    log, sums = container.reports or (None, None)
    reports = Reports(administrators, log, sums, container.streams, settings.report_zone)
    app.register_blueprint(reports_blueprint(reports))
    again = Again(administrators, container.batches)
    app.register_blueprint(ratings_blueprint(administrators, log, settings.report_zone, again))
    app.register_blueprint(comparison_blueprint(administrators, container.batch_store))
    parsers: dict[str, Callable[[str], object]] = {
        "ACCESS_FILE": partial(AccessRules.parse, apps=settings.app_providers),
        "QUOTAS_FILE": QuotaRules.parse,
        "WORDS_FILE": WordRules.parse,
    }
    stored = container.rules_store, container.rules_versions
    rules = RulesParts(lambda: container.rules.files, parsers, sums, settings.report_zone, *stored)
    app.register_blueprint(rules_blueprint(administrators, rules))
    batches = Batches(container.batches, container.batch_store) if container.batches and container.batch_store else None
    app.register_blueprint(batches_blueprint(administrators, batches))
    parts = OverviewParts(
        log,
        sums,
        settings.report_zone,
        running=running.count,
        replicas=container.replicas,
        look=container.health.look,
        bots=[bot.name for bot in settings.bots.values() if bot.mode == "websocket"],
        lease=container.leases.look,
        alerts=alerts is not None,
    )
    app.register_blueprint(overview_blueprint(administrators, parts))


def register_http_chat(app: Flask, container: Container, callers: GuardedCallers, uploads: FileUploads) -> None:
    """Register `/api/chat` and the OpenAI endpoint, which answer one question over plain HTTP and share their slots."""
    settings, texts = container.settings, container.texts
    waits = WaitingRequests(most=settings.http_waits_max, timeout=settings.stream_ttl)
    container.attach(waits)

    def questions(refusal: Callable[[str], RestError]) -> WaitingQuestions:
        return WaitingQuestions(
            gateway=container.gateway,
            limiter=container.limiter,
            waits=waits,
            ready=lambda: container.ready,
            refusal=refusal,
        )

    chat = HttpChat(questions(partial(refusal, texts=texts)), texts, uploads)
    models = askable_bots(container)
    bots = AskableBots(models, texts)
    app.register_blueprint(http_chat_blueprint(chat, bots, callers))
    slots = upload_slots(settings, "files_busy", texts.get("files_busy"))
    app.register_blueprint(uploads_blueprint(uploads, slots, callers, texts))
    opening = KeptOpening(container.providers[DEFAULT_BOT])
    app.register_blueprint(opening_blueprint(opening, uploads, callers))
    app.register_blueprint(feedback_blueprint(container.feedback_inbox, bots, callers, texts))
    asked = questions(partial(openai_refusal, texts=texts))
    app.register_blueprint(openai_channel(asked, container.sessions, callers, models, settings, texts))


def register_batches(app: Flask, container: Container, callers: GuardedCallers) -> None:
    """Register the batch endpoints; without a database they reply that batches are unavailable."""

    def html(content: str) -> str:
        rendered = render_markdown(content, thinking=container.settings.web_thinking)
        return with_pictures(rendered, container.files.foreign.path)

    endpoints = BatchEndpoints(
        container.batches,
        callers,
        container.limiter,
        texts=container.texts,
        html=html,
        readers=upload_slots(container.settings, "busy", "Too many files are being read."),
        max_bytes=container.settings.batch_max_bytes,
        question_max_bytes=container.settings.question_max_bytes,
    )
    app.register_blueprint(endpoints.blueprint())


def register_docs(app: Flask, settings: Settings, texts: Texts, *, version: str) -> None:
    """Register the index of endpoints and the OpenAPI documentation."""
    name, path = settings.app_name, settings.ws_path
    app.register_blueprint(index_blueprint(name=name, version=version, realtime_path=path, texts=texts))
    open_to_all = settings.websocket_auth == "none"
    app.register_blueprint(
        docs_blueprint(name=name, version=version, realtime_path=path, texts=texts, open_to_all=open_to_all)
    )

"""Builds the objects that answer the messages of WeCom's bots: commands and long connections."""

from __future__ import annotations

import os
import socket
from functools import partial

from bootstrap.container import Container
from bootstrap.factories import make_frames
from channels.wecom.commands import BotCommands
from channels.wecom.link_socket import open_socket
from channels.wecom.long_connection import LongConnectionInbox
from channels.wecom.messages import WeComMessages
from services import metrics
from services.redis.lock_store import LockStore
from services.streams.access import Access
from services.wecom.alert_store import AlertStore, FaultStore
from services.wecom.alerts import POST_SECONDS, GroupAlerts
from services.wecom.fault_watch import FaultWatch
from services.wecom.handoff import HandoffManager
from services.wecom.long_connection.answers import AnswerSender, DeliveryServices
from services.wecom.long_connection.link import LinkHandlers
from services.wecom.long_connection.pushes import PushSender
from services.wecom.long_connection.subscriber import LongConnections
from services.wecom.long_connection.uploads import Uploads
from services.wecom.long_connection.view import AnswerUploads, AnswerView
from services.wecom.markdown_service import MarkdownService


def wecom_messages(container: Container) -> WeComMessages:
    """Return the handler of WeCom's messages, for callbacks and for the long connection."""
    return WeComMessages(
        gateway=container.gateway,
        texts=container.texts,
        welcomes={name: bot.welcome for name, bot in container.settings.bots.items()},
        commands=bot_commands(container),
        feedback=container.feedback_inbox,
    )


def group_alerts(container: Container) -> GroupAlerts | None:
    """Return what posts alerts to the operators' group, and attach what watches for the gateway's own to the container.

    None without `ALERT_WEBHOOK`.
    """
    settings = container.settings
    if settings.alert_webhook is None:
        return None
    robot = container.open(MarkdownService(total_seconds=POST_SECONDS))
    post = partial(robot.post, settings.alert_webhook.get_secret_value())
    store = AlertStore(container.runner, per_hour=settings.alert_max_per_hour)
    group = GroupAlerts(store, post, container.texts, severity=settings.alert_severity)
    watch = FaultWatch(
        group,
        FaultStore(container.runner),
        LockStore(container.runner),
        report=container.health.report,
        ended=metrics.ended_answers,
        texts=container.texts,
        replica=_replica(),
    )
    container.attach(watch)
    return group


def bot_commands(container: Container) -> dict[str, BotCommands]:
    """Return the commands of each bot, and attach the thread that posts to group robots to the container."""
    bots = container.settings.bots
    robots = {name: bot.handoff_webhook.get_secret_value() for name, bot in bots.items() if bot.handoff_webhook}
    handoffs = HandoffManager(robots, post=container.responses.post, read=container.streams.read, texts=container.texts)
    container.attach(handoffs)
    return {
        name: BotCommands(bot.bot_name or name, bot.commands, container.gateway, handoffs, container.texts)
        for name, bot in bots.items()
    }


def subscribe_bots(container: Container, messages: WeComMessages) -> PushSender:
    """Attach the long connections of bots in websocket mode to the container; return the sender of their pushes."""
    bots, stores = container.settings.bots, container.long_stores
    uploads = Uploads(stores.uploads, stores.allowance, stores.keys)
    pushes = PushSender(stores.pushes, stores.allowance, uploads)
    offers = container.files.offers
    frames = make_frames(container.settings, container.texts, offers, parts=container.settings.wechat_ws_parts)
    view = AnswerView(
        container.gateway, container.streams, container.files.store, frames, offers=offers, texts=container.texts
    )
    paces = {name: bot.ws_frame_seconds for name, bot in bots.items()}
    files = AnswerUploads(container.files.store, offers, uploads)
    services = DeliveryServices(stores.answers, view, files, stores.allowance)
    sender = AnswerSender(services, Access(stores.keys), frame_seconds=paces)
    names = {name: bot.bot_name for name, bot in bots.items()}
    inbox = LongConnectionInbox(container.gateway, messages, sender, container.texts, bot_names=names)
    handlers = LinkHandlers(inbox.on_message, inbox.on_event, serve=(sender.serve, pushes.serve))
    connections = LongConnections(bots, container.leases, handlers, open_socket=open_socket, replica=_replica())
    container.attach(connections)
    container.attach_handover(connections.hand_over)
    return pushes


def _replica() -> str:
    """Return the name of this process in leases and locks."""
    return f"{socket.gethostname()}:{os.getpid()}"

"""Every sentence that users can see, in Chinese (the default) and in English.

A sentence says what happened and what to do next; it never contains an address, an error code or an exception's text.
The keys up to `suggestions_heading` are for conversations, those up to `rag_error` for sockets, those up to
`batch_conflict` for searches and REST; all others are error codes. `TEXTS_FILE` can replace any sentence.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from typing import Any

from config.environment import did_you_mean
from services.errors import SettingsError

#: Key of the sentence for errors without one of their own.
FALLBACK = "answer_failed"

ZH: Mapping[str, str] = {
    "thinking": "思考中...",
    "queued": "排在上一个问题之后，请稍候...",
    "step": "正在执行：{step}...",
    "welcome": "您好，我是来宝，有什么问题直接问我就好。想换个话题时，发送“新对话”即可重新开始。",
    "reset_done": "已开始新对话，之前的内容不会再影响接下来的回答。请提问吧。",
    "stop_done": "好的，您在这里的提问都已停止回答。需要时可以重新提问。",
    "retry_nothing": "没有可以重新回答的问题，或者它已经过期。请直接提问。",
    "help": "直接输入问题，我就会回答。也可以发送这些命令：\n\n{commands}\n\n命令不区分大小写。",
    "help_reset": "开始新对话。",
    "help_stop": "停止正在进行的回答。",
    "help_retry": "重新回答上一个问题。",
    "help_help": "查看这份帮助。",
    "help_whoami": "查看您的账号。",
    "help_human": "转人工处理。",
    "whoami": "您的账号：{userid}\n\n姓名：{name}\n\n您正在与机器人“{bot}”对话。",
    "name_unknown": "（未知）",
    "human": "这里没有人工坐席在线。如需人工处理，请联系管理员。",
    "human_notified": "已转给人工同事，请稍候，他们会尽快与您联系。",
    "handoff_message": (
        "**有人请求人工处理**\n人员：{person}\n机器人：{bot}\n问题：\n{question}\n\n"
        "回答：\n{answer}\n\n请尽快与此人联系。"
    ),
    "handoff_none": "（无）",
    "unsupported_message": "抱歉，这种消息我看不懂。请发送文字、语音、图片或文件。",
    "media_question": "请看我发来的内容，告诉我它说了什么、要点是什么。",
    "empty_question": "没有看到问题内容，请输入您想问的问题。",
    "question_too_large": "问题太长了，请精简后再问，或分几次提问。",
    "stream_unknown": "这条回答已经过期，找不到了。请重新提问。",
    "frame_ended": "（这条消息已到显示时限，以上是目前的内容。如需其余部分，请重新提问。）",
    "truncated": "（内容太长，这里只能显示一部分。请缩小问题范围，或让我分段回答。）",
    "frame_ended_late": "(1/2)（这条消息已到显示时限。回答完成后，余下部分会作为下一条消息发送。）",
    "truncated_late": "(1/2)（内容太长，余下部分会作为下一条消息发送。）",
    "late_complete": "以上内容已经完整。",
    "late_truncated": "（内容仍然太长，只能发送到这里。请缩小问题范围，或让我分段回答。）",
    "late_truncated_link": "（内容仍然太长，只能发送到这里。[完整回答]({url})在 {minutes} 分钟内可以下载。）",
    "picture_named": "（图片：{name}）",
    "picture_unnamed": "（图片）",
    "file_named": "（文件：{name}）",
    "file_unnamed": "（文件）",
    "file_link": "文件：[{name}]({url})",
    "files_missing": "（未能获取的图片或文件：{names}）",
    "files_unlinked": "（以下文件无法在这里下载，请联系管理员：{names}）",
    "form_choose": "（请回复序号或选项文字。）",
    "form_inputs": "（请回复序号或选项文字，后面接着写所需内容；有多项时每项一行，按上面的顺序。例如：1 内容）",
    "form_wanted": "需要填写以下内容。",
    "form_elsewhere": "（这里无法回复。请在企业微信或网页聊天中提问，再选择。）",
    "sources_heading": "参考资料：",
    "suggestions_heading": "您还可以问：",
    "socket_connected": "Connected to chat server. Start chatting!",
    "invalid_json": "无效的JSON格式",
    "invalid_message": "消息格式不对：{what}",
    "unsupported_type": "不支持的消息类型: {type}",
    "unknown_action": "未知的控制动作: {action}",
    "no_final_asr": "没有可用的最终化ASR文本",
    "message_empty": "消息内容为空，请输入您的问题。",
    "message_too_long": "消息太长，最多 {limit} 个字。请分几次提问。",
    "too_many_questions": "您还有几个问题尚未答完，请稍后再问。",
    "rate_limited": "问得太快了，请过一会儿再问。",
    "auth_required": "请先提供密钥。",
    "auth_failed": "密钥无效或已过期，请检查后重试。",
    "address_blocked": "此地址提交错误密钥的次数过多，请一分钟后再试。",
    "service_unavailable": "服务暂时不可用，请稍后再试。",
    "server_error": "处理这条消息时出错了，请再试一次。",
    "socket_disconnected": "您已被管理员断开连接。",
    "socket_replaced": "同一个客户端已在别处连接，这里的连接已关闭。",
    "note_listening": "等待ASR文本输入",
    "note_waiting": "等待完整问题",
    "note_analyzing": "分析问题: {question}",
    "note_querying": "正在查询RAG服务",
    "note_idle": "等待新的问题",
    "note_paused": "会话已暂停",
    "note_resumed": "会话已恢复",
    "note_stopped": "会话已停止",
    "note_instant": "执行即时查询",
    "note_closed": "连接已关闭",
    "note_paused_chunk": "会话已暂停，这段文本未处理",
    "batch_task_not_found": "没有这个批量任务。",
    "batch_task_failed": "批量任务失败：没有一个问题得到回答。",
    "unsupported": "当前服务未提供此功能。",
    "too_many_subscriptions": "此连接订阅的任务过多，请先取消几个。",
    "batch_progress": "已处理 {done}/{total} 个问题",
    "rag_error": "RAG查询失败: {sentence}",
    "search_failed": "（联网搜索暂时不可用，以下回答没有参考搜索结果。）",
    "search_empty": "（没有搜到相关内容，以下回答没有参考搜索结果。）",
    "search_heading": "相关搜索结果:",
    "http_full": "现在等待回答的请求太多，请稍后再试。",
    "batch_queue_full": "任务队列已满，请稍后再试",
    "batch_key_full": "您未完成的任务太多了，请等一些任务结束后再提交。",
    "batch_unavailable": "批量处理服务不可用",
    "batch_unknown": "任务不存在",
    "batch_finished": "任务已经结束，不能再更改。",
    "id_conflict": "此编号已用于另一个问题，请换一个新编号再问。",
    "answer_running": "回答还没有结束，请在结束后再评价。",
    "not_rateable": "这条消息不是问答服务的回答，不能评价。",
    "feedback_full": "等待处理的评价太多，请稍后再试。",
    "feedback_reason_1": "与问题无关。",
    "feedback_reason_2": "回答不完整。",
    "feedback_reason_3": "内容有误。",
    "feedback_reason_4": "数据分析有误。",
    "batch_conflict": "这个幂等键已经用于另一次提交。",
    "unknown_user": "没有找到您的账号信息。请联系管理员开通后再试。",
    "auth_refused": "用户认证失败，请联系管理员。",
    "auth_unavailable": "认证服务暂时不可用，请稍后再试。",
    "credential_lost": "服务切换到了另一个进程，无法再以您的身份继续这个问题，请重新提问。",
    "not_allowed": "您还没有使用权限。如需使用，请联系管理员开通。",
    "media_too_large": "图片或文件太大了，我无法读取。请压缩、裁剪或拆分后重新发送。",
    "media_too_old": "图片或文件的下载链接已过期。请重新发送一次。",
    "media_not_allowed": "图片或文件的存放位置不在允许的范围内，我无法读取。请联系管理员。",
    "media_failed": "图片或文件没有下载成功。请稍后重新发送。",
    "media_undecryptable": "图片或文件解密失败，我无法读取。请重新发送；如仍不行，请联系管理员。",
    "media_wrong_type": "这种类型的文件无法处理。请换成常见的图片或文档格式后重新发送。",
    "media_unsupported": "当前的问答服务不支持图片或文件。请用文字描述您的问题。",
    "media_too_many": "一条消息里的图片或文件太多了。请分几次发送。",
    "provider_unauthorized": "问答服务拒绝了连接，请联系管理员检查密钥。",
    "provider_not_found": "问答应用不存在或尚未发布。请联系管理员检查配置。",
    "provider_rejected": "问答服务没有接受这个问题。请换一种说法再试；如仍不行，请联系管理员。",
    "provider_filtered": "内容未通过安全审核，回答已终止。请换一种问法再试。",
    "provider_busy": "现在提问的人有点多，问答服务忙不过来。请过一会儿再试。",
    "provider_error": "抱歉，问答服务出错了，我暂时无法回答您的问题。请稍后再试。",
    "provider_unreachable": "暂时连不上问答服务，请稍后再试。",
    "provider_timeout": "等待回答超时了，请稍后重试，或把问题问得更具体一些。",
    "provider_truncated": "回答中途断开了，以上内容可能不完整。请重新提问。",
    "provider_empty": "这次没有得到回答。请换一种问法再试。",
    "provider_tools": "模型没有作答，只请求调用工具，而本服务不执行工具。请换一种问法再试；如仍不行，请联系管理员。",
    "provider_paused": "这个问题需要人工处理后才能继续，暂时无法在这里完成。请联系管理员。",
    "form_answered": "这个选择已经提交过了，请等待结果。",
    "form_expired": "这个选择已过期，无法再提交。如仍需办理，请重新提问。",
    "form_gone": "问答服务已找不到这个待选项，无法提交。请重新提问。",
    "form_rejected": "问答服务没有接受这个选择，可能缺少必填内容。请检查后再选择一次。",
    "form_unsent": "您的选择可能没有送达，还没有提交。请再选择一次。",
    "conversation_gone": "之前的对话已经失效。请发送“新对话”，然后重新提问。",
    "answer_too_long": "回答太长，只能保留到这里。请缩小问题范围再问。",
    "answer_timeout": "回答用时过长，已经停止，以上是已完成的部分。请把问题拆分后再问。",
    "interrupted": "回答被中断了，以上内容可能不完整。请重新提问。",
    "cancelled": "已停止回答。需要时可以重新提问。",
    "replica_full": "现在提问的人太多，请一分钟后再试。",
    "user_full": "您还有几个问题正在回答，请等其中一个答完再问。",
    "turns_full": "前面已有几个问题在排队，请等它们答完再问。",
    "draining": "服务正在更新，请几秒钟后再问。",
    "store_unavailable": "服务暂时不可用，问题没有保存下来。请稍后重新提问。",
    "answer_failed": "抱歉，我暂时无法回答您的问题。请稍后再试。",
}

EN: Mapping[str, str] = {
    "thinking": "Thinking...",
    "queued": "Waiting behind your previous question...",
    "step": "Working on: {step}...",
    "welcome": "Hello, I am Laibao. Just ask me anything. To change the subject, send “/reset” and we start anew.",
    "reset_done": "A new conversation has begun; what was said before no longer counts. Go ahead and ask.",
    "stop_done": "All answers to your questions here have been stopped. Ask again whenever you like.",
    "retry_nothing": "There is no question to answer again, or it has expired. Please just ask.",
    "help": "Type a question and I will answer it. You can also send:\n\n{commands}\n\nCapitals do not matter.",
    "help_reset": "begin a new conversation.",
    "help_stop": "stop the answers in progress.",
    "help_retry": "answer your last question again.",
    "help_help": "show this list.",
    "help_whoami": "show your account.",
    "help_human": "hand over to a colleague.",
    "whoami": "Your account: {userid}\n\nName: {name}\n\nYou are talking to the bot “{bot}”.",
    "name_unknown": "(unknown)",
    "human": "Nobody is on duty here. If you need a person, please contact an administrator.",
    "human_notified": "Your question was passed on to a colleague, who will contact you as soon as possible.",
    "handoff_message": (
        "**Somebody asks for a human**\nPerson: {person}\nBot: {bot}\nQuestion:\n{question}\n\n"
        "Answer:\n{answer}\n\nPlease contact this person soon."
    ),
    "handoff_none": "(none)",
    "unsupported_message": "Sorry, I cannot read this kind of message. Please send text, voice, a picture or a file.",
    "media_question": "Please look at what I sent, and tell me what it says and what matters in it.",
    "empty_question": "I see no question. Please type what you would like to know.",
    "question_too_large": "This question is too long. Please shorten it, or ask in several parts.",
    "stream_unknown": "This answer has expired. Please ask again.",
    "frame_ended": "(The time of this message is over; this is what there was so far. For the rest, please ask again.)",
    "truncated": "(Too long: only a part is shown here. Please narrow the question, or ask for the answer in parts.)",
    "frame_ended_late": "(1/2) (The time of this message is over. The rest follows as a further message.)",
    "truncated_late": "(1/2) (Too long for one message: the rest follows as a further one.)",
    "late_complete": "The answer above is complete.",
    "late_truncated": "(Still too long: it ends here. Please narrow the question, or ask for the answer in parts.)",
    "late_truncated_link": "(Still too long: it ends here. [The whole answer]({url}) is kept for {minutes} minutes.)",
    "picture_named": "(picture: {name})",
    "picture_unnamed": "(picture)",
    "file_named": "(file: {name})",
    "file_unnamed": "(file)",
    "file_link": "File: [{name}]({url})",
    "files_missing": "(Pictures or files that could not be fetched: {names})",
    "files_unlinked": "(These files cannot be downloaded here, please ask an administrator: {names})",
    "form_choose": "(Please reply with a number or the words of a choice.)",
    "form_inputs": "(Please reply with a choice, then what is asked for, one thing a line. For example: 1 my words)",
    "form_wanted": "Please give the following.",
    "form_elsewhere": "(This cannot be answered here. Please ask in WeCom or in the web chat, and choose there.)",
    "sources_heading": "Sources:",
    "suggestions_heading": "You could ask next:",
    "socket_connected": "Connected to chat server. Start chatting!",
    "invalid_json": "Invalid message format. Please send valid JSON.",
    "invalid_message": "The message is not well-formed: {what}",
    "unsupported_type": "Unsupported message type: {type}",
    "unknown_action": "Unknown control action: {action}",
    "no_final_asr": "There is no final transcript to ask about yet.",
    "message_empty": "The message is empty. Please type a question.",
    "message_too_long": "The message is too long; {limit} characters are taken at most. Please ask in parts.",
    "too_many_questions": "Some of your questions are still being answered. Please wait a moment.",
    "rate_limited": "Too many questions at once. Please wait a moment.",
    "auth_required": "Please show your key first.",
    "auth_failed": "The key is wrong or has expired. Please check it and try again.",
    "address_blocked": "Too many wrong keys came from this address. Please try again in a minute.",
    "service_unavailable": "The service is unavailable at the moment. Please try again later.",
    "server_error": "Something went wrong with this message. Please try again.",
    "socket_disconnected": "You have been disconnected by the server.",
    "socket_replaced": "The same client has connected elsewhere; this connection was closed.",
    "note_listening": "Waiting for the transcript",
    "note_waiting": "Waiting for a whole question",
    "note_analyzing": "Analysing the question: {question}",
    "note_querying": "Asking the answering service",
    "note_idle": "Waiting for the next question",
    "note_paused": "Paused",
    "note_resumed": "Resumed",
    "note_stopped": "Stopped",
    "note_instant": "Asking at once",
    "note_closed": "Closed",
    "note_paused_chunk": "Paused: this part was not taken",
    "batch_task_not_found": "There is no such batch task.",
    "batch_task_failed": "The batch task failed: not one question was answered.",
    "unsupported": "This service does not offer that.",
    "too_many_subscriptions": "This connection follows too many tasks. Stop following one first.",
    "batch_progress": "{done} of {total} questions done",
    "rag_error": "The answering service failed: {sentence}",
    "search_failed": "(Web search is unavailable at the moment; this answer does without it.)",
    "search_empty": "(The web search found nothing; this answer does without it.)",
    "search_heading": "Search results:",
    "http_full": "Too many requests are waiting for answers here. Please try again in a moment.",
    "batch_queue_full": "The task queue is full. Please try again later.",
    "batch_key_full": "Too many of your tasks are unfinished. Please wait until some have ended.",
    "batch_unavailable": "Batch processing is not available here.",
    "batch_unknown": "There is no such task.",
    "batch_finished": "The task has ended and cannot be changed any more.",
    "id_conflict": "This id already stands for another question. Please ask with a new one.",
    "answer_running": "The answer is not complete yet. Please rate it afterwards.",
    "not_rateable": "This message is not an answer of the provider and cannot be rated.",
    "feedback_full": "Too many ratings wait to be processed. Please try again later.",
    "feedback_reason_1": "Unrelated to the question.",
    "feedback_reason_2": "Incomplete.",
    "feedback_reason_3": "Wrong content.",
    "feedback_reason_4": "Wrong analysis of the data.",
    "batch_conflict": "This idempotency key stands for another submission.",
    "unknown_user": "I could not find your account. Please ask an administrator to set it up, then try again.",
    "auth_refused": "Your sign-in was refused. Please contact an administrator.",
    "auth_unavailable": "The sign-in service is unavailable at the moment. Please try again later.",
    "credential_lost": "Another process took over and cannot ask this question in your name. Please ask it again.",
    "not_allowed": "You do not have access yet. If you need it, please ask an administrator.",
    "media_too_large": "This picture or file is too large for me. Please shrink or split it, and send it again.",
    "media_too_old": "The link to this picture or file has expired. Please send it once more.",
    "media_not_allowed": "This picture or file is stored where I may not fetch from. Please tell an administrator.",
    "media_failed": "The picture or file could not be downloaded. Please send it again in a moment.",
    "media_undecryptable": "The picture or file could not be decrypted. Send it again, or tell an administrator.",
    "media_wrong_type": "I cannot take this type of file. Please send a common picture or document format instead.",
    "media_unsupported": "The answering service here takes no pictures or files. Please put your question into words.",
    "media_too_many": "There are too many pictures or files in one message. Please send fewer at a time.",
    "provider_unauthorized": "The answering service refused our key. Please tell an administrator.",
    "provider_not_found": "The answering app does not exist or is not published. Please tell an administrator.",
    "provider_rejected": "The answering service did not accept this question. Please try other words.",
    "provider_filtered": "A content filter stopped this answer. Please ask in other words.",
    "provider_busy": "Many people are asking just now. Please try again in a little while.",
    "provider_error": "Sorry, the answering service failed, so I have no answer for you. Please try again later.",
    "provider_unreachable": "The answering service cannot be reached at the moment. Please try again later.",
    "provider_timeout": "The answer took too long to come. Please try again later, or ask more precisely.",
    "provider_truncated": "The answer broke off, so the above may be incomplete. Please ask again.",
    "provider_empty": "No answer came back this time. Please ask in other words.",
    "provider_tools": "The model only asked for a tool, and tools are not run here. Please ask in other words.",
    "provider_paused": "Somebody has to approve this first, which cannot be done here. Please tell an administrator.",
    "form_answered": "This choice has been submitted already. Please wait for the result.",
    "form_expired": "The time for this choice is over. If you still need it, please ask again.",
    "form_gone": "The service does not know this choice any more, so it was not submitted. Please ask again.",
    "form_rejected": "The service did not take this choice; something may be missing. Please choose again.",
    "form_unsent": "Your choice may not have arrived and was not submitted. Please choose again.",
    "conversation_gone": "The earlier conversation is no longer available. Please send “/reset” and ask again.",
    "answer_too_long": "The answer is too long and ends here. Please narrow the question.",
    "answer_timeout": "The answer took too long and was stopped; it ends above. Please ask in smaller parts.",
    "interrupted": "The answer was interrupted, so the above may be incomplete. Please ask again.",
    "cancelled": "Stopped. Ask again whenever you like.",
    "replica_full": "Too many people are asking just now. Please try again in a minute.",
    "user_full": "Some of your questions are still being answered. Please wait for one of them.",
    "turns_full": "Several questions are already waiting here. Please wait until they are answered.",
    "draining": "The service is being updated. Please ask again in a few seconds.",
    "store_unavailable": "The service is unavailable and your question was not kept. Please ask again later.",
    "answer_failed": "Sorry, I cannot answer your question at the moment. Please try again later.",
}

LOCALES: Mapping[str, Mapping[str, str]] = {"zh": ZH, "en": EN}


class Texts:
    """The sentences of one locale, with `overrides` applied."""

    def __init__(self, locale: str = "zh", overrides: Mapping[str, str] | None = None) -> None:
        self._sentences = {**LOCALES[locale], **check_overrides(overrides or {})}

    def get(self, key: str, **params: object) -> str:
        """Return the sentence for `key` with `params` filled in.

        Raises:
            KeyError: the key is unknown, which is a bug.
        """
        return self._sentences[key].format(**params)

    def known(self, code: str) -> str:
        """Return the sentence for a code, or "" if there is none."""
        return self._sentences.get(code, "")

    def error(self, code: str) -> str:
        """Return the sentence for an error code; for an unknown code that of `FALLBACK`."""
        return self.get(code if code in self._sentences else FALLBACK)


def check_overrides(overrides: Mapping[str, Any]) -> Mapping[str, str]:
    """Check the sentences of `TEXTS_FILE` and return them unchanged.

    Raises:
        SettingsError: a key is unknown, or a sentence is empty, not a string, or has a placeholder that the built-in
            sentence does not have.
    """
    for key, sentence in overrides.items():
        if key not in ZH:
            raise SettingsError(f"TEXTS_FILE: {key} is not the key of a sentence{did_you_mean(key, ZH)}")
        if not isinstance(sentence, str) or not sentence.strip():
            raise SettingsError(f"TEXTS_FILE: {key} is wrong: expected a sentence, got {sentence!r}")
        if not _placeholders(key, sentence) <= _placeholders(key, ZH[key]):
            raise SettingsError(f"TEXTS_FILE: {key} is wrong: expected no {{…}} that our own sentence lacks")
    return overrides


def _placeholders(key: str, sentence: str) -> set[str]:
    try:
        return {name for _, name, _, _ in string.Formatter().parse(sentence) if name is not None}
    except ValueError as exc:
        raise SettingsError(f"TEXTS_FILE: {key} is wrong: {exc}; a brace is written twice") from exc

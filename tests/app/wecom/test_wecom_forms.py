"""An app asks back: the bubble ends with the choices, and the person's choice continues the run in a new bubble."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from config.texts import ZH
from demo.mocks.dify.error_replies import MockErrorReply
from demo.mocks.dify.features.asking_back import ASKS, LEAD, rest
from demo.mocks.dify.server import MockDify
from demo.wecom.simulator import WeComUser
from tests.support.replicas import AppServer, dify_settings
from utils.stream_utils import render_frame

ASK = "报销要什么材料 [[form]]"
CHOICES = "1. 同意\n2. 驳回\n3. 转交财务"


@pytest.fixture
def values(redis_url: str, dify: MockDify) -> dict[str, str]:
    return {"redis_url": redis_url, "DRAIN_SECONDS": "0", **dify_settings(dify.base_url)}


def asked(user: WeComUser, question: str = ASK) -> str:
    """Ask, and return the bubble that ends with a form."""
    return user.sees_finish(user.says(question), every=0.05)


def answers(user: WeComUser, text: str, msgid: str | None = None) -> str:
    """Return the bubble of a text that is typed."""
    return user.sees_finish(user.says(text, msgid), every=0.05, replacements=1)


def shown(*parts: str) -> str:
    return render_frame("\n\n".join(parts), growing=False)


def continued(question: str, title: str, **inputs: str) -> str:
    return render_frame(rest(question, title, inputs), growing=False)


def actions(dify: MockDify) -> list[str]:
    return [action for _, action, _ in dify.forms.submissions]


@pytest.mark.parametrize("typed", ["2", " ２ ", "驳回", " 驳回\n"])
def test_a_number_or_a_choices_words_continue_the_run(typed: str, user: WeComUser, dify: MockDify) -> None:
    """The rest of the answer comes in a new bubble; Dify gets one submission and no second question."""
    asked(user)

    answer = answers(user, typed)

    assert answer == continued(ASK, "驳回")
    assert (actions(dify), dify.forms.refused) == (["reject"], 0)
    assert [request.body["query"] for request in dify.requests] == [ASK]


def test_other_words_are_a_question_and_the_form_stays_open(user: WeComUser, dify: MockDify) -> None:
    """A number without a choice, a choice within a sentence, and any other text are asked."""
    asked(user)

    for question in ("4", "同意吗", "营业时间"):
        assert answers(user, question) == render_frame(dify.expected_answer(question), growing=False)

    assert actions(dify) == []
    assert answers(user, "1") == continued(ASK, "同意")


def test_in_a_shared_group_a_member_does_not_answer_for_another(redis_url: str, dify: MockDify) -> None:
    """The members share the conversation, but not their forms."""
    values = {"DRAIN_SECONDS": "0", "WECHAT_GROUP_CONVERSATION": "shared", **dify_settings(dify.base_url)}
    with (
        AppServer(redis_url, **values) as app_server,
        app_server.user(chatid="wr1") as user,
        app_server.user("lisi", chatid="wr1") as other,
    ):
        asked(user)
        answers(other, "@bot 1")
        before = actions(dify)
        answers(user, "@bot 1")

    assert (before, actions(dify)) == ([], ["approve"])


def test_a_redelivered_choice_is_submitted_once(user: WeComUser, dify: MockDify) -> None:
    """All deliveries show the same bubble, also at the same moment."""
    asked(user)

    with ThreadPoolExecutor(4) as pool:
        bubbles = list(pool.map(lambda _: user.says("1", "choice"), range(4)))
    shown = {user.sees_finish(bubble, every=0.05) for bubble in bubbles}

    assert shown == {continued(ASK, "同意")}
    assert (actions(dify), dify.forms.refused) == (["approve"], 0)


def test_a_choice_typed_twice_is_submitted_once(user: WeComUser, dify: MockDify) -> None:
    """The second message, another choice included, gets a sentence and is no question."""
    asked(user)
    first, second = user.says("1"), user.says("2")

    assert user.sees_finish(first, every=0.05) == continued(ASK, "同意")
    assert user.sees_finish(second, every=0.05) == ZH["form_answered"]
    assert (actions(dify), len(dify.requests)) == (["approve"], 1)


def test_a_number_means_the_newest_form(user: WeComUser, dify: MockDify) -> None:
    """The older one stays open; when the newer one was answered for some time, a number means it."""
    older, newer = "年假怎么申请 [[form]]", ASK
    asked(user, older)
    asked(user, newer)

    assert answers(user, "3") == continued(newer, "转交财务")
    assert answers(user, "1") == ZH["form_answered"]
    assert actions(dify) == ["finance"]


@pytest.mark.parametrize(
    ("script", "typed", "action", "inputs"),
    [
        ("form-comment", "1 尽快付款", "approve", {"comment": "尽快付款"}),
        ("form-comment", "驳回：发票不对\n请重开", "reject", {"comment": "发票不对\n请重开"}),
        ("form-inputs", "2\n发票不对\nHIGH", "reject", {"comment": "发票不对", "priority": "high"}),
    ],
)
def test_texts_go_with_the_choice(
    script: str, typed: str, action: str, inputs: dict[str, str], user: WeComUser, dify: MockDify
) -> None:
    """The bubble names them, and says how they are given."""
    bubble = asked(user, f"报销 [[{script}]]")
    answers(user, typed)

    assert all(name in bubble for name in (ZH["form_wanted"], ZH["form_inputs"], *inputs))
    assert [given for _, *given in dify.forms.submissions] == [[action, inputs]]


def test_a_choice_that_lacks_its_text_is_rejected_and_can_be_repeated(user: WeComUser, dify: MockDify) -> None:
    """Dify leaves such a form open."""
    asked(user, "报销 [[form-comment]]")

    assert answers(user, "1") == ZH["form_rejected"]
    answers(user, "1 好")

    assert [given for _, *given in dify.forms.submissions] == [["approve", {"comment": "好"}]]


@pytest.mark.parametrize("script", ["form-mail", "form-file"])
def test_a_form_that_words_cannot_answer_ends_with_a_sentence(script: str, user: WeComUser) -> None:
    """It is sent by e-mail, or wants a file."""
    assert asked(user, f"报销 [[{script}]]").endswith(ZH["provider_paused"])


@pytest.mark.parametrize(
    ("status", "code", "sentence"),
    [
        (412, "human_input_form_submitted", "form_answered"),
        (412, "human_input_form_expired", "form_expired"),
        (412, "something_new", "form_answered"),
        (404, "human_input_form_not_found", "form_gone"),
        (429, "too_many_requests", "provider_busy"),
        (401, "unauthorized", "provider_unauthorized"),
    ],
)
def test_a_refused_submission_has_its_sentence(
    status: int, code: str, sentence: str, user: WeComUser, dify: MockDify
) -> None:
    """It is submitted once."""
    asked(user)
    dify.refuses_forms = MockErrorReply.api(status, code, "no")

    assert answers(user, "1") == ZH[sentence]
    assert dify.forms.refused == 1


def test_a_run_asks_twice(user: WeComUser, dify: MockDify) -> None:
    """The second form is in the bubble of the first choice."""
    question = "报销 [[form-twice]]"
    asked(user, question)
    second = answers(user, "1")

    assert second == shown("第 2 问。", "真的吗？", "1. 是\n2. 否", ZH["form_choose"])
    assert answers(user, "1") == continued(question, "是")
    assert actions(dify) == ["approve", "yes"]


def test_two_forms_at_once_have_numbers_of_their_own(user: WeComUser, dify: MockDify) -> None:
    """Each is submitted; the run goes on after the last."""
    question = "报销 [[form-two]]"
    assert asked(user, question) == shown(LEAD, ASKS, CHOICES, "抄送给谁？", "4. 主管", ZH["form_choose"])

    again = answers(user, "2")
    assert again == shown("抄送给谁？", "1. 主管", ZH["form_choose"])
    assert answers(user, "1") == continued(question, "驳回、主管")
    assert actions(dify) == ["reject", "boss"]


def test_a_form_before_any_text(user: WeComUser) -> None:
    """The bubble has the form alone."""
    question = "报销 [[form-first]]"
    assert asked(user, question) == shown(ASKS, CHOICES, ZH["form_choose"])
    assert answers(user, "1") == continued(question, "同意")


def test_the_conversation_stays_the_same(user: WeComUser, dify: MockDify) -> None:
    """A question after the choice is asked in the conversation of the form."""
    asked(user)
    answers(user, "1")
    answers(user, "营业时间")

    (run, *_) = [run for _, run in dify.forms._known.values()]
    assert dify.requests[-1].body["conversation_id"] == run.conversation_id


def test_nothing_in_redis_or_in_the_log_tells_a_forms_token(
    app_server: AppServer, user: WeComUser, dify: MockDify, caplog: pytest.LogCaptureFixture
) -> None:
    """With the token alone anybody could submit the form: it is sealed."""
    caplog.set_level("DEBUG")
    asked(user)
    answers(user, "1")
    (token,) = dify.forms._known
    stored = dump(app_server.container.redis)

    assert token not in stored
    assert token not in caplog.text + "".join(str(record.__dict__) for record in caplog.records)


def dump(client: Any) -> str:
    """Return everything in Redis as text."""
    read = {"string": client.get, "hash": client.hgetall, "list": lambda key: client.lrange(key, 0, -1)}
    return "".join(str(read[kind](key)) for key in client.keys("*") if (kind := client.type(key)) in read)

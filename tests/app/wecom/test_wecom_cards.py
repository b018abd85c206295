"""Template cards: a form's choices, suggestions and an app's own card, and what becomes of a click."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from config.texts import ZH
from demo.mocks.dify.features.asking_back import ASKS, LEAD, rest
from demo.mocks.dify.server import MockDify
from demo.wecom.card_clicks import CardClick, buttons_of
from demo.wecom.simulator import Bubble, ResponseServer, WeComUser
from tests.support.replicas import AppServer, dify_settings
from tests.support.servers.processes import wait_until
from utils.markdown.plain_text import plain_line
from utils.stream_utils import render_frame

ASK = "报销要什么材料 [[form]]"
TITLES = ["同意", "驳回", "转交财务"]


@pytest.fixture
def values(redis_url: str, dify: MockDify) -> dict[str, str]:
    base = {"redis_url": redis_url, "DRAIN_SECONDS": "0", **dify_settings(dify.base_url)}
    return {**base, "WECHAT_RESPONSE_HOSTS": "127.0.0.1"}


@pytest.fixture
def user(app_server: AppServer, responses: ResponseServer) -> Iterator[WeComUser]:
    with app_server.user(responses=responses) as user:
        yield user


def asked(user: WeComUser, question: str = ASK) -> Bubble:
    """Ask, and return the bubble when it has ended."""
    bubble = user.says(question)
    user.sees_finish(bubble, every=0.05)
    return bubble


def answered(user: WeComUser, click: CardClick) -> str:
    """Wait for the message that answers a click, and return it."""
    wait_until(lambda: user.late(click), timeout=30.0)
    (post,) = user.late(click)
    assert post.broken == ()
    return post.content


def continued(title: str) -> str:
    return render_frame(rest(ASK, title), growing=False)


def actions(dify: MockDify) -> list[str]:
    return [action for _, action, _ in dify.forms.submissions]


def test_a_form_comes_with_a_card_beside_its_numbers(user: WeComUser) -> None:
    """The text is what it is without a card, and a repeated poll shows the same card."""
    bubble = asked(user)
    user.polls(bubble)

    choices = "1. 同意\n2. 驳回\n3. 转交财务"
    text = "\n\n".join([LEAD, ASKS, choices, ZH["form_choose"]])
    assert bubble.content == render_frame(text, growing=False)
    assert bubble.card
    assert list(buttons_of(bubble.card)) == TITLES
    assert bubble.frames[-1].card == bubble.frames[-2].card
    assert len([frame for frame in bubble.frames if frame.card]) == 2


def test_a_click_submits_the_choice_and_is_answered_by_a_message(user: WeComUser, dify: MockDify) -> None:
    """The card keeps the button that was clicked; the rest of the run comes through the event's address, once."""
    bubble = asked(user)
    assert bubble.card

    click = user.clicks(bubble.card, "驳回")

    assert click.card
    assert (click.says, list(buttons_of(click.card))) == (ZH["card_clicked"], ["驳回"])
    assert answered(user, click) == continued("驳回")
    assert (actions(dify), dify.forms.refused, len(dify.requests)) == (["reject"], 0, 1)
    assert user.late(bubble) == []


def test_a_replayed_click_is_submitted_and_answered_once(user: WeComUser, dify: MockDify) -> None:
    """Deliveries of one event at the same moment, and one after the end, change nothing."""
    card = asked(user).card
    assert card

    with ThreadPoolExecutor(4) as pool:
        clicks = list(pool.map(lambda _: user.clicks(card, "同意", "click"), range(4)))
    assert answered(user, clicks[0]) == continued("同意")
    again = user.clicks(card, "同意", "click")

    assert {click.says for click in [*clicks, again]} == {ZH["card_clicked"]}
    assert (actions(dify), dify.forms.refused, len(user.late(again))) == (["approve"], 0, 1)


def test_a_second_click_is_told_that_it_is_too_late(user: WeComUser, dify: MockDify) -> None:
    """Another button, and the button that the card keeps after a click: one submission."""
    card = asked(user).card
    assert card
    first = user.clicks(card, "同意")
    assert first.card

    others = [user.clicks(card, "驳回"), user.clicks(first.card, "同意")]

    assert answered(user, first) == continued("同意")
    assert [answered(user, click) for click in others] == [ZH["form_answered"]] * 2
    assert (actions(dify), dify.forms.refused, len(dify.requests)) == (["approve"], 0, 1)


def test_a_click_after_the_form_was_answered_by_number(user: WeComUser, dify: MockDify) -> None:
    """The number was submitted; the click says so."""
    card = asked(user).card
    assert card
    user.sees_finish(user.says("2"), every=0.05, replacements=1)

    assert answered(user, user.clicks(card, "同意")) == ZH["form_answered"]
    assert actions(dify) == ["reject"]


def test_nobody_else_clicks_for_the_person_who_asked(app_server: AppServer, user: WeComUser, dify: MockDify) -> None:
    """Neither another person nor the same one in another chat; their number is a question, and the form stays open."""
    card = asked(user).card
    assert card

    with (
        app_server.user("lisi", responses=user._responses) as other,
        app_server.user(chatid="wr1", responses=user._responses) as elsewhere,
    ):
        for one in (other, elsewhere):
            assert answered(one, one.clicks(card, "同意")) == ZH["form_gone"]
            assert asked(one, "1").content == render_frame(dify.expected_answer("1"), growing=False)

    assert actions(dify) == []
    assert answered(user, user.clicks(card, "同意")) == continued("同意")


def test_a_click_means_its_own_form(user: WeComUser, dify: MockDify) -> None:
    """A number means the newest form; a button of an older card still means the older one."""
    older = asked(user, "年假怎么申请 [[form]]").card
    asked(user)
    assert older

    answer = answered(user, user.clicks(older, "转交财务"))

    assert answer == render_frame(rest("年假怎么申请 [[form]]", "转交财务"), growing=False)
    assert actions(dify) == ["finance"]


def test_an_expired_form_is_told(user: WeComUser, dify: MockDify) -> None:
    """A click or a number that comes too late is not submitted."""
    card = asked(user, "报销 [[form-expires]]").card
    assert card
    wait_until(lambda: all(form.expired for form, _ in dify.forms._known.values()), timeout=30.0)

    assert answered(user, user.clicks(card, "同意")) == ZH["form_expired"]
    assert user.sees_finish(user.says("1"), every=0.05) == ZH["form_expired"]
    assert (actions(dify), dify.forms.refused, len(dify.requests)) == ([], 0, 1)


def test_a_reset_forgets_open_forms(user: WeComUser, dify: MockDify) -> None:
    """A click after it is no question; a number is one."""
    card = asked(user).card
    assert card
    user.sees_finish(user.says("/reset"), every=0.05)

    assert answered(user, user.clicks(card, "同意")) == ZH["form_gone"]
    assert len(dify.requests) == 1
    assert asked(user, "1").content == render_frame(dify.expected_answer("1"), growing=False)
    assert actions(dify) == []


def test_a_click_that_is_refused_says_so_on_the_card(user: WeComUser, values: dict[str, str], dify: MockDify) -> None:
    """All slots are taken: no message follows, and the button stays for another click."""
    card = asked(user).card
    assert card
    running = [user.says(f"年假怎么申请 {number} [[silent]]") for number in range(3)]

    refused = user.clicks(card, "同意")
    assert refused.card
    assert (refused.says, list(buttons_of(refused.card))) == (ZH["user_full"], ["同意"])
    user.sees_finish(user.says("/stop"), every=0.05)
    for bubble in running:
        user.sees_finish(bubble, every=0.1)
    assert answered(user, user.clicks(refused.card, "同意")) == continued("同意")
    assert (user.late(refused), actions(dify)) == ([], ["approve"])


@pytest.mark.parametrize("script", ["form-comment", "form-two"])
def test_what_one_click_cannot_answer_has_no_card(script: str, user: WeComUser) -> None:
    """A form that asks for texts, and two forms at once."""
    assert asked(user, f"报销 [[{script}]]").card is None


def test_a_group_has_no_card_for_a_form(app_server: AppServer, responses: ResponseServer) -> None:
    """Everybody there could click."""
    with app_server.user(chatid="wr1", responses=responses) as user:
        assert asked(user, f"@bot {ASK}").card is None


def test_without_late_messages_there_are_no_cards(app_server: AppServer, user: WeComUser, dify: MockDify) -> None:
    """A click could not be answered; one on a card of before is told to type, and submits nothing."""
    card = asked(user).card
    assert card

    with app_server.user() as unlisted:
        assert asked(unlisted).card is None
        assert unlisted.clicks(card, "同意").says == ZH["card_unanswerable"]
    assert actions(dify) == []


def test_a_card_of_somebody_else_is_left_alone(user: WeComUser) -> None:
    """The event gets an empty reply."""
    card = asked(user).card
    assert card
    (button, *_) = card["button_list"]

    assert user.clicks({**card, "task_id": "ticket-42"}, "同意").card is None
    assert user.clicks({**card, "button_list": [{**button, "key": "agree"}]}, "同意").card is None


def test_an_apps_own_card_comes_with_the_answer_and_a_click_asks(user: WeComUser, dify: MockDify) -> None:
    """No frame shows the block; the button's key is the question, in the same conversation."""
    bubble = asked(user, "有什么 [[card]]")
    assert bubble.card
    assert bubble.content == "您想了解哪一项？\n\n\n也可以直接输入问题。"
    assert "wecom-card" not in "".join(frame.content for frame in bubble.frames)

    answer = answered(user, user.clicks(bubble.card, "年假"))

    assert answer == render_frame(dify.expected_answer("年假怎么申请"), growing=False)
    first, second = dify.requests
    assert second.body["query"] == "年假怎么申请"
    assert "conversation_id" not in first.body
    assert second.body["conversation_id"]


def test_a_selection_goes_along_with_the_question(user: WeComUser, dify: MockDify) -> None:
    """One line for each list, with the ids of its options."""
    card = {
        "card_type": "multiple_interaction",
        "main_title": {"title": "请假"},
        "select_list": [
            {"question_key": "类型", "option_list": [{"id": "年假", "text": "年假"}, {"id": "病假", "text": "病假"}]}
        ],
        "submit_button": {"text": "提交", "key": "我要请假"},
    }
    shown = asked(user, f"[[echo]]\n```wecom-card\n{json.dumps(card)}\n```").card
    assert shown

    answered(user, user.clicks(shown, "提交", selected={"类型": ["病假"]}))

    assert dify.requests[-1].body["query"] == "我要请假\n类型: 病假"


def test_in_a_group_a_card_asks_for_whoever_clicks(
    app_server: AppServer, responses: ResponseServer, dify: MockDify
) -> None:
    """The answer goes to the group through the event's address, and only this person's card changes."""
    with (
        app_server.user(chatid="wr1", responses=responses) as user,
        app_server.user("lisi", chatid="wr1", responses=responses) as other,
    ):
        card = asked(user, "@bot 有什么 [[card]]").card
        assert card
        click = other.clicks(card, "报销")

        assert answered(other, click) == render_frame(dify.expected_answer("报销需要哪些材料"), growing=False)
    assert dify.requests[-1].body["user"] == "lisi"


def test_a_click_that_is_a_command_says_so_on_the_card(user: WeComUser) -> None:
    """There is no answer to wait for."""
    card = {
        "card_type": "button_interaction",
        "main_title": {"title": "重新开始？"},
        "button_list": [{"text": "是", "key": "/reset"}],
    }
    shown = asked(user, f"[[echo]]\n```wecom-card\n{json.dumps(card)}\n```").card
    assert shown

    click = user.clicks(shown, "是")

    assert click.says == plain_line(ZH["reset_done"], 100)
    assert user.late(click) == []


def test_suggestions_are_buttons(values: dict[str, str], dify: MockDify, responses: ResponseServer) -> None:
    """A click asks the question; where no click can be answered they are listed."""
    dify.suggested = ("病假怎么申请", "报销")
    with (
        AppServer(**values, WECHAT_SUGGESTIONS="true") as app_server,
        app_server.user(responses=responses) as user,
        app_server.user("lisi") as unlisted,
    ):
        bubble = asked(user, "营业时间")
        assert bubble.card
        assert bubble.content == render_frame(dify.expected_answer("营业时间"), growing=False)
        answer = answered(user, user.clicks(bubble.card, "病假怎么申请"))
        listed = asked(unlisted, "营业时间")

    heading = f"\n\n{ZH['suggestions_heading']}\n\n- 病假怎么申请\n- 报销"
    assert answer == render_frame(dify.expected_answer("病假怎么申请"), growing=False) + heading
    assert (listed.card, listed.content) == (None, bubble.content + heading)
